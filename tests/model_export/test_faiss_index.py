"""Approximate indexes: the right classes, codes that are small, and search effort that travels with the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from model_export.faiss_index import build_index, efforts, ivf_lists, parts, size_bytes, spend, write_index
from service.index import Index
from tests.model_export.vectors import unit_vectors


@pytest.mark.parametrize(("count", "lists"), [(1, 1), (38, 1), (780, 20), (100_000, 632), (1_000_000, 2000)])
def test_inverted_files_have_two_roots_of_lists_that_can_be_trained(count: int, lists: int) -> None:
    assert ivf_lists(count) == lists


@pytest.mark.parametrize(("dimension", "count"), [(2, 1), (512, 256), (1, 1), (257, 257)])
def test_parts_are_of_two_dimensions_where_these_are_even(dimension: int, count: int) -> None:
    assert parts(dimension) == count


@pytest.mark.parametrize("kind", ["hnsw", "ivf"])
def test_files_hold_codes_and_the_effort_that_was_set(kind: str, tmp_path: Path) -> None:
    vectors = unit_vectors(3000)
    index = build_index(vectors, kind)  # type: ignore[arg-type]
    for effort in {effort for effort, _ in efforts(index)}:
        spend(index, effort)
        write_index(index, tmp_path / "labels.faiss")
        reread: Any = faiss.read_index(str(tmp_path / "labels.faiss"))
        found = reread.hnsw.efSearch if kind == "hnsw" else faiss.extract_index_ivf(reread).nprobe
        assert found == effort
    assert (tmp_path / "labels.faiss").stat().st_size == size_bytes(index)
    finest = faiss.downcast_index(reread.storage if kind == "hnsw" else reread.refine_index)
    assert finest.code_size == vectors.shape[1]


def test_inverted_files_of_wide_vectors_take_at_most_half_of_their_bytes() -> None:
    vectors = unit_vectors(2000, dimension=256)
    assert size_bytes(build_index(vectors, "ivf")) < vectors.nbytes / 2


@pytest.mark.parametrize("lists", [1, 2, 63, 64, 200, 2000])
def test_efforts_rise_up_to_all_lists_from_those_that_hold_the_candidates(lists: int) -> None:
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(8), 8, lists, faiss.METRIC_INNER_PRODUCT)
    index.ntotal = 50 * lists
    spent = list(efforts(index))
    assert {candidates for _, candidates in spent} == {200, 400, 800}
    for candidates in (200, 400, 800):
        visited = [effort for effort, each in spent if each == candidates]
        assert visited == sorted(set(visited))
        assert visited[-1] == lists
        assert visited[0] == lists or visited[0] * 50 >= 2 * candidates


@pytest.mark.parametrize("dimension", [1, 2, 7])
@pytest.mark.parametrize("kind", ["hnsw", "ivf"])
def test_few_vectors_of_few_dimensions_are_enough(kind: str, dimension: int, capfd: pytest.CaptureFixture[str]) -> None:
    vectors = np.ascontiguousarray(unit_vectors(3)[:, :dimension])
    index = build_index(vectors, kind)  # type: ignore[arg-type]
    top = Index(index, candidates=None if kind == "hnsw" else 100, threads=1).search(vectors, 5)
    assert set(top.ids_QK[0].tolist()) == {0, 1, 2}
    np.testing.assert_allclose(top.scores_QK[0], np.sort(vectors @ vectors[0])[::-1], atol=0.02)
    assert capfd.readouterr() == ("", "")
