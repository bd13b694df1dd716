"""Approximate indexes: the right classes, and search effort that travels with the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from model_export.codes import encode
from model_export.faiss_index import build_index, efforts, ivf_lists, size_bytes, spans, spend, write_index
from service.search.index import Index
from service.search.lists import InvertedLists
from tests.model_export.vectors import unit_vectors


@pytest.mark.parametrize(("count", "lists"), [(1, 1), (38, 1), (780, 20), (100_000, 1265), (1_000_000, 4000)])
def test_inverted_files_have_four_roots_of_lists_that_can_be_trained(count: int, lists: int) -> None:
    assert ivf_lists(count) == lists


@pytest.mark.parametrize("kind", ["hnsw", "ivf"])
def test_candidates_are_found_in_the_directions_that_hold_nine_tenths(kind: Any) -> None:
    """Six directions hold all but a thousandth, and sixteen are read at once."""
    vectors = unit_vectors(500) * np.where(np.arange(24) < 6, 1.0, 0.03).astype(np.float32)
    index = build_index(vectors, kind)
    assert (index.index.d, index.d) == (16, 24)
    spend(index, max(effort for effort, _ in efforts(index)))
    found = index.search(vectors[:50], 10)[1]
    exact = np.argsort(-(vectors[:50] @ vectors.T), axis=1)[:, :3]
    assert np.mean([len(set(a) & set(b)) / 3 for a, b in zip(found, exact, strict=True)]) > 0.9


@pytest.mark.parametrize("kind", ["hnsw", "ivf"])
def test_files_hold_codes_and_the_effort_that_was_set(kind: str, tmp_path: Path) -> None:
    vectors = unit_vectors(3000)
    index = build_index(vectors, kind)  # type: ignore[arg-type]
    for effort in {effort for effort, _ in efforts(index)}:
        spend(index, effort)
        write_index(index, tmp_path / "labels.faiss")
        reread: Any = faiss.read_index(str(tmp_path / "labels.faiss"))
        searched = faiss.downcast_index(reread.index)
        found = searched.hnsw.efSearch if kind == "hnsw" else searched.nprobe
        assert found == effort
    assert (tmp_path / "labels.faiss").stat().st_size == size_bytes(index)


def test_the_span_lets_as_many_lists_be_visited_on_average() -> None:
    vectors, asked = unit_vectors(5000), unit_vectors(40, seed=1)
    index = build_index(vectors, "ivf")
    for effort in (20, 33, 128):
        span = spans(index, asked)(effort)
        assert span is not None
        assert (InvertedLists(index, span).gaps(asked) <= span).sum() == pytest.approx(40 * effort, abs=2)
    assert spans(index, asked)(1) == 0


def test_a_graph_has_no_span() -> None:
    assert spans(build_index(unit_vectors(50), "hnsw"), unit_vectors(3))(20) is None


@pytest.mark.parametrize("count", [1, 50, 500, 5000])
def test_efforts_rise_up_to_all_lists_from_those_that_hold_the_candidates(count: int) -> None:
    spent = list(efforts(build_index(unit_vectors(count, dimension=4), "ivf")))
    lists = ivf_lists(count)
    assert {candidates for _, candidates in spent} == {200, 400, 800, 1200, 1600}
    for candidates in (200, 400, 800, 1200, 1600):
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
    span = spans(index, vectors)(1)
    top = Index(index, encode(vectors, vectors), candidates=100, span=span, threads=1).search(vectors, 5)
    assert set(top.ids_QK[0].tolist()) == {0, 1, 2}
    np.testing.assert_allclose(top.scores_QK[0], np.sort(vectors @ vectors[0])[::-1], atol=0.02)
    assert capfd.readouterr() == ("", "")
