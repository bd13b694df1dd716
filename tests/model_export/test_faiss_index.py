"""Approximate indexes: the right classes, codes that are small, and search effort that travels with the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from model_export.faiss_index import build_index, efforts, ivf_lists, size_bytes, spend, write_index
from service.index import Index
from tests.model_export.vectors import unit_vectors


@pytest.mark.parametrize(("count", "lists"), [(1, 1), (38, 1), (780, 20), (100_000, 1265), (1_000_000, 4000)])
def test_inverted_files_have_four_roots_of_lists_that_can_be_trained(count: int, lists: int) -> None:
    assert ivf_lists(count) == lists


@pytest.mark.parametrize("kind", ["hnsw", "ivf"])
def test_candidates_are_found_in_the_directions_that_hold_nine_tenths(kind: Any) -> None:
    """Six directions hold all but a thousandth, sixteen are read at once; the candidates' scores are of all of them."""
    vectors = unit_vectors(500) * np.where(np.arange(24) < 6, 1.0, 0.03).astype(np.float32)
    index = build_index(vectors, kind)
    projection = faiss.downcast_index(index.base_index)
    assert (projection.index.d, index.d) == (16, 24)
    top = Index(index, candidates=500, threads=1).search(vectors[:5], 1)
    np.testing.assert_allclose(top.scores_QK[:, 0], (vectors[:5] @ vectors.T).max(axis=1), atol=0.005)


@pytest.mark.parametrize("kind", ["hnsw", "ivf"])
def test_files_hold_codes_and_the_effort_that_was_set(kind: str, tmp_path: Path) -> None:
    vectors = unit_vectors(3000)
    index = build_index(vectors, kind)  # type: ignore[arg-type]
    for effort in {effort for effort, _ in efforts(index)}:
        spend(index, effort)
        write_index(index, tmp_path / "labels.faiss")
        reread: Any = faiss.read_index(str(tmp_path / "labels.faiss"))
        searched = faiss.downcast_index(faiss.downcast_index(reread.base_index).index)
        found = searched.hnsw.efSearch if kind == "hnsw" else searched.nprobe
        assert found == effort
    assert (tmp_path / "labels.faiss").stat().st_size == size_bytes(index)
    assert faiss.downcast_index(reread.refine_index).code_size == vectors.shape[1]


def test_inverted_files_of_wide_vectors_take_at_most_half_of_their_bytes() -> None:
    vectors = unit_vectors(5000, dimension=64) @ unit_vectors(64, seed=1, dimension=256)
    assert size_bytes(build_index(vectors, "ivf")) < vectors.nbytes / 2


@pytest.mark.parametrize("count", [1, 50, 500, 5000])
def test_efforts_rise_up_to_all_lists_from_those_that_hold_the_candidates(count: int) -> None:
    spent = list(efforts(build_index(unit_vectors(count, dimension=4), "ivf")))
    lists = ivf_lists(count)
    assert {candidates for _, candidates in spent} == {200, 400, 800, 1600}
    for candidates in (200, 400, 800, 1600):
        visited = [effort for effort, each in spent if each == candidates]
        assert visited == sorted(set(visited))
        assert visited[-1] == lists
        assert visited[0] == lists or visited[0] / lists * count >= 2 * candidates


def test_a_walk_keeps_the_candidates_at_least() -> None:
    spent = set(efforts(build_index(unit_vectors(50), "hnsw")))
    assert {(200, 200), (1600, 1600)} < spent
    assert all(effort >= candidates for effort, candidates in spent)


@pytest.mark.parametrize("dimension", [1, 2, 7])
@pytest.mark.parametrize("kind", ["hnsw", "ivf"])
def test_few_vectors_of_few_dimensions_are_enough(kind: str, dimension: int, capfd: pytest.CaptureFixture[str]) -> None:
    vectors = np.ascontiguousarray(unit_vectors(3)[:, :dimension])
    index = build_index(vectors, kind)  # type: ignore[arg-type]
    top = Index(index, candidates=100, threads=1).search(vectors, 5)
    assert set(top.ids_QK[0].tolist()) == {0, 1, 2}
    np.testing.assert_allclose(top.scores_QK[0], np.sort(vectors @ vectors[0])[::-1], atol=0.02)
    assert capfd.readouterr() == ("", "")
