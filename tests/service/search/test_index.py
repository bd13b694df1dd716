from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from model_export.codes import decoded, encode
from model_export.faiss_index import build_index, write_index
from service.bundle.searching import ApproximateType, IndexSection
from service.errors import BundleError
from service.search.index import Index
from tests.reference import assert_best, best_labels

VECTORS, DIMENSION = 900, 24
KINDS: tuple[ApproximateType, ...] = ("hnsw", "ivf")
WIDEST = 1e6


def vectors(count: int = VECTORS, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((count, DIMENSION)).astype(np.float32)


STORED, ASKED = vectors(), vectors(20, seed=1)
CODES = encode(STORED, ASKED)
DECODED = decoded(CODES)
FINDERS = {kind: build_index(STORED, kind) for kind in KINDS}


def searched(kind: ApproximateType, candidates: int = 50, span: float = 0.5) -> Index:
    return Index(FINDERS[kind], CODES, candidates=candidates, span=span if kind == "ivf" else None, threads=1)


def section(kind: ApproximateType, candidates: int = 50) -> IndexSection:
    span = 0.5 if kind == "ivf" else None
    return IndexSection(type=kind, recall=1.0, candidates=candidates, directions=DIMENSION, span=span)


def opened(path: Path, index: Any, kind: ApproximateType, dimension: int = DIMENSION) -> Index:
    write_index(index, path / "index")
    return Index.open(path / "index", section(kind), CODES, dimension=dimension, threads=1)


@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_full(kind: ApproximateType) -> None:
    """A graph may have parts that it does not reach, and the lists that are within the span hold few vectors."""
    assert_best(searched(kind, candidates=1, span=0.0).search(ASKED, VECTORS), ASKED @ DECODED.T, VECTORS, 1e-4)


def test_a_graph_that_finds_too_few_is_passed_by() -> None:
    """One that walks nowhere: its entry point has no neighbours."""
    lonely = faiss.clone_index(FINDERS["hnsw"])
    graph = faiss.downcast_index(lonely.index).hnsw
    neighbours = faiss.rev_swig_ptr(graph.neighbors.data(), graph.neighbors.size())
    neighbours[:] = -1
    index = Index(lonely, CODES, candidates=50, span=None, threads=1)
    assert_best(index.search(ASKED, 7), ASKED @ DECODED.T, 7, 1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_most_of_the_best_are_found(kind: ApproximateType) -> None:
    exact_QK = best_labels(ASKED @ STORED.T, 5)
    top = searched(kind).search(ASKED, 5)
    assert np.mean([len(set(a) & set(b)) / 5 for a, b in zip(top.ids_QK, exact_QK, strict=True)]) > 0.8


def test_more_candidates_find_more() -> None:
    exact_QK = best_labels(ASKED @ STORED.T, 5)

    def found(candidates: int) -> int:
        ids_QK = searched("ivf", candidates, WIDEST).search(ASKED, 5).ids_QK
        return sum(len(set(a) & set(b)) for a, b in zip(ids_QK, exact_QK, strict=True))

    assert found(5) < found(100)


def test_among_all_candidates_the_answer_is_that_of_the_codes() -> None:
    assert_best(searched("ivf", VECTORS).search(ASKED, 7), ASKED @ DECODED.T, 7, 1e-4)


@pytest.mark.parametrize("span", [0.0, 1.0])
def test_up_to_the_candidates_an_answer_begins_every_longer_one(span: float) -> None:
    index = searched("ivf", 50, span)
    longest = index.search(ASKED, 50)
    for k in (1, 5, 49):
        answer = index.search(ASKED, k)
        np.testing.assert_array_equal(answer.ids_QK, longest.ids_QK[:, :k])
        np.testing.assert_array_equal(answer.scores_QK, longest.scores_QK[:, :k])


def test_answers_do_not_depend_on_company() -> None:
    index = searched("ivf")
    together = index.search(ASKED, 50)
    for row in range(len(ASKED)):
        alone = index.search(ASKED[row : row + 1], 50)
        np.testing.assert_array_equal(alone.ids_QK[0], together.ids_QK[row])
        np.testing.assert_array_equal(alone.scores_QK[0], together.scores_QK[row])


@settings(max_examples=50, deadline=None)
@given(
    k=st.integers(1, 2 * VECTORS),
    candidates=st.integers(1, 2 * VECTORS),
    span=st.floats(0, 5),
    kind=st.sampled_from(KINDS),
)
def test_answers_are_in_order(k: int, candidates: int, span: float, kind: ApproximateType) -> None:
    """Whatever the lists hold: scores that fall, ties by row, every row once and with the score of its codes."""
    top = searched(kind, candidates, span).search(ASKED[:3], k)
    assert top.ids_QK.shape == (3, min(k, VECTORS))
    for query, ids_K, scores_K in zip(ASKED, top.ids_QK, top.scores_QK, strict=False):
        assert len(set(ids_K.tolist())) == len(ids_K)
        assert ids_K.tolist() == ids_K[np.lexsort((ids_K, -scores_K))].tolist()
        np.testing.assert_allclose(scores_K, DECODED[ids_K] @ query, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_answers_as_what_was_built(tmp_path: Path, kind: ApproximateType) -> None:
    top, expected = opened(tmp_path, FINDERS[kind], kind).search(ASKED, 9), searched(kind).search(ASKED, 9)
    np.testing.assert_array_equal(top.ids_QK, expected.ids_QK)
    np.testing.assert_array_equal(top.scores_QK, expected.scores_QK)


def test_every_calling_thread_gets_the_thread_limit() -> None:
    """OpenMP's limit belongs to the calling thread: setting it once, elsewhere, would not do."""
    index, limits = searched("hnsw"), []

    def search() -> None:
        index.search(ASKED[:1], 1)
        limits.append(faiss.omp_get_max_threads())

    thread = threading.Thread(target=search)
    thread.start()
    thread.join()
    assert limits == [1]


def test_a_file_that_is_no_index(tmp_path: Path) -> None:
    (tmp_path / "index").write_bytes(b"not an index at all")
    with pytest.raises(BundleError, match="expected a FAISS index, found"):
        Index.open(tmp_path / "index", section("hnsw"), CODES, dimension=DIMENSION, threads=1)


@pytest.mark.parametrize(
    ("kind", "dimension", "count", "expected", "found"),
    [
        ("ivf", DIMENSION, VECTORS, "IndexIVFPQFastScan", "IndexHNSWSQ"),
        ("hnsw", DIMENSION + 1, VECTORS, str(DIMENSION + 1), str(DIMENSION)),
        ("hnsw", DIMENSION, VECTORS - 1, str(VECTORS), str(VECTORS - 1)),
    ],
)
def test_an_index_that_is_not_what_the_manifest_says(
    tmp_path: Path, kind: ApproximateType, dimension: int, count: int, expected: str, found: str
) -> None:
    with pytest.raises(BundleError, match=rf"expected .*{expected}.*, found .*{found}"):
        opened(tmp_path, build_index(STORED[:count], "hnsw"), kind, dimension)


def test_an_index_without_projection_is_refused(tmp_path: Path) -> None:
    """As bundles had them once."""
    index = faiss.IndexHNSWFlat(DIMENSION, 16, faiss.METRIC_INNER_PRODUCT)
    index.add(STORED)
    with pytest.raises(BundleError, match=r"expected .*IndexPreTransform.*, found .*\('IndexHNSWFlat', "):
        opened(tmp_path, index, "hnsw")


@pytest.mark.parametrize("row", [-1, VECTORS])
def test_lists_that_name_rows_that_are_not_there_are_refused(tmp_path: Path, row: int) -> None:
    index = faiss.clone_index(FINDERS["ivf"])
    lists = faiss.downcast_index(index.index)
    last = lists.nlist - 1
    faiss.rev_swig_ptr(lists.invlists.get_ids(last), lists.invlists.list_size(last))[-1] = row
    with pytest.raises(BundleError, match=rf"expected rows in 0\.\.{VECTORS - 1} in all lists, found one outside"):
        opened(tmp_path, index, "ivf")


def test_an_index_by_distance_is_refused(tmp_path: Path) -> None:
    projection = faiss.LinearTransform(DIMENSION, DIMENSION, False)
    faiss.copy_array_to_vector(np.eye(DIMENSION, dtype=np.float32).ravel(), projection.A)
    projection.is_trained = True
    index = faiss.IndexPreTransform(projection, faiss.IndexHNSWFlat(DIMENSION, 16, faiss.METRIC_L2))
    index.add(STORED)
    with pytest.raises(BundleError, match="metric"):
        opened(tmp_path, index, "hnsw")
