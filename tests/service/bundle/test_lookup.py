"""Labels are found by their ids, whatever these are, and no two may share one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.bundle import LabelTable, encode_labels, layout, open_bundle
from service.bundle.lookup import hashed
from service.errors import BundleError
from tests.bundles import resign
from tests.service.bundle.damage import change_array

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


def table(ids: list[str], texts: list[str] | None = None) -> LabelTable:
    lines, offsets = encode_labels(ids, texts)
    array = np.frombuffer(lines, dtype=np.uint8)
    return LabelTable(array, offsets, hashed(array, offsets))


@given(st.lists(TEXTS, min_size=1, max_size=40, unique=True), st.lists(TEXTS, max_size=10), st.booleans())
def test_ids_are_found_like_keys_of_a_dictionary(ids: list[str], others: list[str], texts: bool) -> None:
    rows = {id_: row for row, id_ in enumerate(ids)}
    asked = [*ids, *others, *(id_[:-1] for id_ in ids), *(f"{id_}x" for id_ in ids)]
    found = table(ids, ids[::-1] if texts else None).find(orjson.dumps(asked))
    assert found.tolist() == [rows.get(id_, -1) for id_ in asked]


def test_nothing_is_found_for_nothing() -> None:
    assert table(["a"]).find(b"[]").tolist() == []


def test_hashes_are_those_of_the_format() -> None:
    """Whoever writes bundles computes the same: FNV-1a of the id as JSON, its halves joined."""
    ids = [f"label-{row:02d}" for row in range(40)]
    slots = np.zeros(layout.slot_count(40), dtype=np.uint32)
    for row, id_ in enumerate(ids):
        number = 0xCBF29CE484222325
        for byte in f'"{id_}"'.encode():
            number = ((number ^ byte) * 0x100000001B3) % 2**64
        slot = (number ^ (number >> 32)) % len(slots)
        while slots[slot]:
            slot = (slot + 1) % len(slots)
        slots[slot] = row + 1
    lines, offsets = encode_labels(ids, None)
    np.testing.assert_array_equal(hashed(np.frombuffer(lines, dtype=np.uint8), offsets), slots)


@pytest.mark.parametrize(("labels", "slots"), [(1, 2), (2, 4), (3, 8), (4, 8), (40, 128), (1_000_000, 2_097_152)])
def test_at_least_half_of_the_slots_are_free(labels: int, slots: int) -> None:
    assert layout.slot_count(labels) == slots


def test_a_table_that_misses_a_label_is_refused(copy: Callable[..., Path]) -> None:
    path = copy()
    change_array(path, layout.LABEL_SLOTS, np.zeros_like)
    resign(path)
    with pytest.raises(BundleError, match=r"labels\.slots\.npy: expected row 0 at the hash of its id, found none"):
        open_bundle(path)


def test_a_table_of_rows_that_are_none_is_refused(copy: Callable[..., Path]) -> None:
    path = copy()
    change_array(path, layout.LABEL_SLOTS, lambda slots: np.full_like(slots, 41))
    resign(path)
    with pytest.raises(BundleError, match=r"labels\.slots\.npy: expected row 0 at the hash"):
        open_bundle(path)


def test_two_labels_with_one_id_are_refused(copy: Callable[..., Path]) -> None:
    path = copy()
    lines = (path / layout.LABELS).read_bytes()
    (path / layout.LABELS).write_bytes(lines.replace(b"label-17", b"label-03"))
    resign(path)
    with pytest.raises(BundleError, match=r"labels\.jsonl: expected every id once, found that of row 3 in row 17"):
        open_bundle(path)


def test_records_that_begin_otherwise_are_refused(copy: Callable[..., Path]) -> None:
    path = copy()
    lines = (path / layout.LABELS).read_bytes()
    (path / layout.LABELS).write_bytes(lines.replace(b'{"id":"label-17"', b'{"ix":"label-17"'))
    resign(path)
    with pytest.raises(BundleError, match=r'labels\.jsonl: expected records that begin with {"id":, found others'):
        open_bundle(path)
