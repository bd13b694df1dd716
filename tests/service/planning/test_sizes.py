"""Bytes on disk, held against bundles of several sizes, file by file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_export.faiss_index import build_index, write_index
from service.bundle import layout
from service.bundle.reader import read_manifest
from service.planning import index_file, sizes
from service.planning.constants import Files
from service.planning.encoders import encoder_bytes
from service.planning.sizes import RECORD_BYTES, by_group, file_bytes, manifest_of
from service.planning.workload import Method, Wishes, Workload, resolved
from tests.bundles import Spec, write_bundle

NEAR = 0.02
FILES = Files(token_bytes=24.0, projection_share=0.5, mapped_index_shares={"ivf": 1.0, "hnsw": 1.0})
# A tiny bundle's encoder is no model of training's; of an index the projection depends on its vectors.
OTHERS = {layout.ENCODER, layout.TOKENIZER, layout.LABEL_INDEX, layout.LABEL_CODES, layout.LABEL_DIRECTIONS}


def planned_for(path: Path, spec: Spec) -> Workload:
    """The workload of a tiny bundle."""
    size = (path / layout.LABELS).stat().st_size
    sizes: dict[str, Any] = {}
    match spec.method:
        case "mach":
            sizes = {"repetitions": spec.repetitions, "buckets": spec.buckets}
        case "declare":
            votes = np.load(path / layout.DECLARE_VOTES_INDICES).size
            sizes = {"rows": spec.row_count, "row_labels": votes / spec.row_count, "dimension": spec.rank}
        case _:
            sizes = {"dimension": 2 * spec.half_dimension, "index": spec.index, "leading": spec.leading}
    return resolved(Wishes(spec.method, spec.label_count, label_bytes=size / spec.label_count - RECORD_BYTES, **sizes))


def narrow_offsets(path: Path) -> None:
    """In the type in which export writes them, which tiny bundles do not."""
    for name in (layout.MACH_INVERTED_OFFSETS, layout.DECLARE_VOTES_INDPTR):
        if (path / name).exists():
            offsets = np.load(path / name)
            np.save(path / name, offsets.astype(layout.offset_dtype(int(offsets.max()))))


SPECS = {
    "mach": Spec(label_count=20_000, repetitions=8, buckets=512),
    "mach, wide steps": Spec(label_count=30_000, repetitions=3, buckets=200),
    "mach, numbers of 32 bits": Spec(label_count=3_000, repetitions=3, buckets=70_000),
    "declare": Spec(method="declare", label_count=2_000, row_count=4_000, alike=True, merged=True, divided=True),
    "declare, many labels": Spec(
        method="declare", label_count=70_000, row_count=200, alike=True, merged=True, recovery="rows"
    ),
    "unidec": Spec(method="unidec", label_count=5_000, half_dimension=16),
    "unidec, leading": Spec(method="unidec", label_count=5_000, half_dimension=16, leading=8),
    "unidec, ivf": Spec(method="unidec", label_count=5_000, half_dimension=16, index="ivf"),
    "unidec, hnsw": Spec(method="unidec", label_count=2_000, half_dimension=16, index="hnsw"),
    "ova": Spec(method="ova", label_count=20_000, half_dimension=8),
}


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_every_file_is_as_large_as_planned(tmp_path: Path, spec: Spec) -> None:
    path = tmp_path / "bundle"
    write_bundle(path, spec)
    narrow_offsets(path)
    found = {file.name: file.stat().st_size for file in path.iterdir() if file.name != layout.MANIFEST}
    planned = file_bytes(planned_for(path, spec), FILES)
    assert planned.keys() == found.keys()
    for name in planned.keys() - OTHERS:
        assert planned[name] == pytest.approx(found[name], rel=NEAR, abs=128), name


@pytest.mark.parametrize("words", [100, 20_000])
def test_classifiers_are_as_large_as_planned(tmp_path: Path, words: int) -> None:
    """Of tiny bundles only the types tell; so arrays of planned lengths are written as they are there."""
    path = tmp_path / "bundle"
    write_bundle(path, Spec(reranked=True, terms=True))
    types = {name: entry.dtype for name, entry in read_manifest(path).files.items()}
    workload = resolved(Wishes("mach", 40, vocabulary=words, rerank_weights=1000))
    planned, weights, terms = file_bytes(workload, FILES), 40_000, words + sizes.PAIRS
    lengths = {
        layout.RERANK_OFFSETS: terms + 1,
        layout.RERANK_LABELS: weights,
        layout.RERANK_VALUES: weights,
        layout.RERANK_SCALES: terms,
        layout.RERANK_IDF: terms,
        layout.RERANK_PIECE_OFFSETS: words + 1,
        layout.RERANK_PAIRS: sizes.PAIRS,
    }
    for name, length in lengths.items():
        dtype = "int32" if name in (layout.RERANK_OFFSETS, layout.RERANK_PIECE_OFFSETS) else types[name]
        np.save(tmp_path / name, np.zeros(length, dtype=dtype))
        assert planned[name] == (tmp_path / name).stat().st_size, name


@pytest.mark.parametrize(
    ("kind", "labels", "near"),
    # How much of a block a list leaves empty is chance.
    [("ivf", 2_000, 0.1), ("ivf", 20_000, 0.1), ("hnsw", 500, NEAR), ("hnsw", 3_000, NEAR)],
)
def test_an_index_is_as_large_as_planned(tmp_path: Path, kind: Any, labels: int, near: float) -> None:
    rng = np.random.default_rng(0)
    vectors_LD = rng.standard_normal((labels, 64)).astype(np.float32)
    index = build_index(vectors_LD, kind)
    write_index(index, tmp_path / "index")
    workload = resolved(Wishes("unidec", labels, dimension=64, index=kind))
    planned = index_file.index_bytes(workload, index.chain.at(0).d_out / 64)
    assert planned == pytest.approx((tmp_path / "index").stat().st_size, rel=near)


def test_codes_are_as_large_as_planned(tmp_path: Path) -> None:
    path = tmp_path / "bundle"
    spec = Spec(method="unidec", label_count=5_000, half_dimension=16, index="ivf")
    write_bundle(path, spec)
    planned = file_bytes(planned_for(path, spec), FILES)
    for name in (layout.LABEL_CODES, layout.LABEL_DIRECTIONS):
        assert planned[name] == pytest.approx((path / name).stat().st_size, rel=NEAR), name


def test_groups_hold_every_file_once() -> None:
    for method in ("mach", "declare", "unidec", "ova"):
        planned = file_bytes(resolved(Wishes(method, 10**6, rerank_weights=10)), FILES)  # type: ignore[arg-type]
        assert sum(by_group(planned).values()) == sum(planned.values())
    known = {name for names in sizes.GROUPS.values() for name in names}
    assert known <= set(planned)


def test_offsets_widen_with_what_they_point_to() -> None:
    narrow, wide = (resolved(Wishes("mach", labels, label_bytes=78)) for labels in (20_000_000, 22_000_000))
    bytes_of = [file_bytes(workload, FILES)[layout.LABEL_OFFSETS] / workload.labels for workload in (narrow, wide)]
    assert bytes_of == pytest.approx([4, 8], rel=1e-4)


def test_the_manifest_that_is_planned_by_is_a_valid_one() -> None:
    method: Method
    for method in ("mach", "declare", "unidec", "ova"):
        workload = resolved(Wishes(method, 1000))
        assert manifest_of(workload).method.name == method
        assert manifest_of(replace(workload, rerank_weights=1.0)).rerank is not None


def test_bytes_of_the_encoder_that_are_given_count() -> None:
    assert encoder_bytes(resolved(Wishes("mach", 1000, encoder_bytes=7))) == 7
