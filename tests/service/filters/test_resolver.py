"""Ids and groups of a request become labels, or a sentence that names what is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.bundle import Bundle, layout, open_bundle
from service.bundle.reader import read_manifest
from service.errors import InvalidRequest
from service.filters.resolver import Resolver
from tests.bundles import Spec, resign, write_bundle, write_manifest

LABELS = 40
GROUPS = ("at", "de", "fr")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    path = tmp_path_factory.mktemp("resolver") / "bundle"
    write_bundle(path, Spec(groups=GROUPS))
    return open_bundle(path)


ROWS = st.none() | st.lists(st.integers(0, LABELS - 1), min_size=1)


def named(rows: list[int] | None) -> bytes | None:
    return None if rows is None else orjson.dumps([f"label-{row:02d}" for row in rows])


@given(ROWS, ROWS, st.none() | st.lists(st.sampled_from(GROUPS), min_size=1))
def test_lists_and_groups_are_sets(
    bundle: Bundle, allow: list[int] | None, deny: list[int] | None, groups: list[str] | None
) -> None:
    members = np.unpackbits(bundle.arrays[layout.LABEL_GROUPS], axis=1, bitorder="little")[:, :LABELS].astype(bool)
    expected = set(range(LABELS)) if allow is None else set(allow)
    if groups is not None:
        expected &= set(np.flatnonzero(members[[GROUPS.index(name) for name in groups]].any(axis=0)).tolist())
    expected -= set(deny or ())
    found = Resolver(bundle).resolve((named(allow), named(deny), None if groups is None else tuple(groups)))
    assert found.rows().tolist() == sorted(expected)
    assert found.count == len(expected)


def test_a_list_that_recurs_is_looked_up_once(bundle: Bundle) -> None:
    resolver = Resolver(bundle)
    first = resolver.resolve((named([1, 2]), None, None))
    assert resolver.resolve((named([1, 2]), None, None)) is first
    assert resolver.resolve((None, named([1, 2]), None)) is not first


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        ((b'["label-01","label-1"]', None, None), r'filter\.allow\[1\]: expected the id .* of tiny, found "label-1"$'),
        ((None, b'["x"]', None), r'filter\.deny\[0\]: expected the id of a label of tiny, found "x"$'),
        ((None, None, ("de", "it")), r'filter\.groups\[1\]: .* of tiny \("at", "de", "fr"\), found "it"$'),
    ],
)
def test_what_is_unknown_is_named(
    bundle: Bundle, wanted: tuple[bytes | None, bytes | None, tuple[str, ...] | None], sentence: str
) -> None:
    with pytest.raises(InvalidRequest, match=sentence):
        Resolver(bundle).resolve(wanted)


def test_of_many_groups_some_are_named(tmp_path: Path) -> None:
    write_bundle(tmp_path / "bundle", Spec(groups=tuple(f"g{number}" for number in range(9))))
    with pytest.raises(InvalidRequest, match=r'\("g0", .*, "g7", others\), found "x"'):
        Resolver(open_bundle(tmp_path / "bundle")).resolve((None, None, ("x",)))


def test_a_bundle_without_groups_or_table_says_so(tmp_path: Path) -> None:
    """Older ones are served, but for filters."""
    path = tmp_path / "bundle"
    write_bundle(path)
    manifest = read_manifest(path)
    files = {name: entry for name, entry in manifest.files.items() if name != layout.LABEL_SLOTS}
    (path / layout.LABEL_SLOTS).unlink()
    write_manifest(path, manifest.model_copy(update={"hashed_ids": False, "files": files}))
    resign(path)
    resolver = Resolver(open_bundle(path))
    with pytest.raises(InvalidRequest, match=r"filter\.allow: expected a bundle with labels\.slots\.npy, .* tiny was"):
        resolver.resolve((b'["label-01"]', None, None))
    with pytest.raises(InvalidRequest, match=r"filter\.groups\[0\]: .* of tiny \(it has none\)"):
        resolver.resolve((None, None, ("de",)))
