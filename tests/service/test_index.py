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

from service.bundle.searching import ApproximateType, IndexSection
from service.errors import BundleError
from service.index import Index
from tests.reference import assert_best, best_labels

VECTORS, DIMENSION = 300, 8


def vectors(seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((VECTORS, DIMENSION)).astype(np.float32)


def build(kind: ApproximateType, stored: NDArray[np.float32]) -> Any:
    index: Any
    if kind == "hnsw":
        index = faiss.IndexHNSWFlat(DIMENSION, 16, faiss.METRIC_INNER_PRODUCT)
    else:
        index = faiss.IndexIVFFlat(faiss.IndexFlatIP(DIMENSION), DIMENSION, 10, faiss.METRIC_INNER_PRODUCT)
        index.cp.min_points_per_centroid = 1
        index.train(stored)
    index.add(stored)
    return index


def refined(stored: NDArray[np.float32]) -> Any:
    """A projection, lists of its coarse codes, and finer ones."""
    coarse: Any = faiss.IndexIVFPQFastScan(
        faiss.IndexFlatIP(DIMENSION), DIMENSION, 10, DIMENSION // 2, 4, faiss.METRIC_INNER_PRODUCT
    )
    coarse.cp.min_points_per_centroid = coarse.pq.cp.min_points_per_centroid = 1
    fine = faiss.IndexScalarQuantizer(DIMENSION, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT)
    for index in (coarse, fine):
        index.train(stored)
        index.add(stored)
    projection = faiss.LinearTransform(DIMENSION, DIMENSION, False)
    faiss.copy_array_to_vector(np.eye(DIMENSION, dtype=np.float32).ravel(), projection.A)
    projection.is_trained = True
    return faiss.IndexRefine(faiss.IndexPreTransform(projection, coarse), fine)


REFINED = refined(vectors())


def section(kind: ApproximateType, candidates: int | None = None) -> IndexSection:
    return IndexSection(type=kind, recall=1.0, candidates=candidates)


def opened(tmp_path: Path, kind: ApproximateType, stored: NDArray[np.float32], threads: int = 1) -> Index:
    faiss.write_index(build(kind, stored), str(tmp_path / "index"))
    return Index.open(tmp_path / "index", section(kind), dimension=DIMENSION, size=len(stored), threads=threads)


@pytest.mark.parametrize("kind", ["hnsw", "ivf"])
def test_approximate_indexes_answer_in_full(tmp_path: Path, kind: ApproximateType) -> None:
    """One IVF list holds fewer vectors than asked for, and a graph may have unreachable parts."""
    asked = np.random.default_rng(1).standard_normal((5, DIMENSION)).astype(np.float32)
    top = opened(tmp_path, kind, vectors()).search(asked, VECTORS)
    assert_best(top, asked.astype(np.float64) @ vectors().T.astype(np.float64), VECTORS)


@pytest.mark.parametrize("kind", ["hnsw", "ivf"])
def test_approximate_indexes_find_mostly_the_best(tmp_path: Path, kind: ApproximateType) -> None:
    asked = vectors()[:50]
    exact_QK = best_labels(asked @ vectors().T, 1)
    top = opened(tmp_path, kind, vectors()).search(asked, 1)
    assert (top.ids_QK == exact_QK).mean() > 0.5


def test_candidates_are_ordered_by_finer_codes(tmp_path: Path) -> None:
    """With every list visited and every vector a candidate, the answer is exactly that of the finer codes."""
    index = refined(vectors())
    faiss.extract_index_ivf(index).nprobe = 10
    faiss.write_index(index, str(tmp_path / "index"))
    searched = Index.open(tmp_path / "index", section("ivf", VECTORS), dimension=DIMENSION, size=VECTORS, threads=1)
    asked = vectors(seed=1)[:20]
    decoded = faiss.downcast_index(index.refine_index).reconstruct_n(0, VECTORS)
    assert_best(searched.search(asked, 7), asked.astype(np.float64) @ decoded.T.astype(np.float64), 7)


@pytest.mark.parametrize("lists", [1, 10])
def test_up_to_the_candidates_an_answer_begins_every_longer_one(tmp_path: Path, lists: int) -> None:
    index = refined(vectors())
    faiss.extract_index_ivf(index).nprobe = lists
    searched = Index(index, candidates=50, threads=1)
    asked = vectors(seed=1)[:20]
    longest = searched.search(asked, 50)
    for k in (1, 5, 49):
        answer = searched.search(asked, k)
        np.testing.assert_array_equal(answer.ids_QK, longest.ids_QK[:, :k])
        np.testing.assert_array_equal(answer.scores_QK, longest.scores_QK[:, :k])
    one_by_one = np.concatenate([searched.search(asked[row : row + 1], 5).ids_QK for row in range(20)])
    np.testing.assert_array_equal(one_by_one, longest.ids_QK[:, :5])


def test_more_candidates_find_more() -> None:
    index = refined(vectors())
    faiss.extract_index_ivf(index).nprobe = 10
    asked = vectors(seed=1)[:50]
    exact = best_labels(asked @ vectors().T, 5)

    def found(candidates: int) -> int:
        ids = Index(index, candidates=candidates, threads=1).search(asked, 5).ids_QK
        return sum(len(set(a) & set(b)) for a, b in zip(ids.tolist(), exact.tolist(), strict=True))

    assert found(5) < found(40)


@settings(max_examples=50, deadline=None)
@given(k=st.integers(1, 2 * VECTORS), candidates=st.integers(1, 2 * VECTORS), lists=st.integers(1, 10))
def test_refined_indexes_answer_in_full_in_order(k: int, candidates: int, lists: int) -> None:
    """Whatever the few lists hold: scores that fall, ties by row, every row once and with the score of its codes."""
    asked = vectors(seed=1)[:3]
    faiss.extract_index_ivf(REFINED).nprobe = lists
    top = Index(REFINED, candidates=candidates, threads=1).search(asked, k)
    decoded = faiss.downcast_index(REFINED.refine_index).reconstruct_n(0, VECTORS)
    assert top.ids_QK.shape == (3, min(k, VECTORS))
    for query, ids_K, scores_K in zip(asked, top.ids_QK, top.scores_QK, strict=True):
        assert len(set(ids_K.tolist())) == len(ids_K)
        assert ids_K.tolist() == ids_K[np.lexsort((ids_K, -scores_K))].tolist()
        np.testing.assert_allclose(scores_K, decoded[ids_K] @ query, rtol=1e-4, atol=1e-4)


def test_every_calling_thread_gets_the_thread_limit(tmp_path: Path) -> None:
    """OpenMP's limit belongs to the calling thread: setting it once, elsewhere, would not do."""
    index = opened(tmp_path, "hnsw", vectors(), threads=1)
    limits = []

    def search() -> None:
        index.search(vectors()[:1], 1)
        limits.append(faiss.omp_get_max_threads())

    thread = threading.Thread(target=search)
    thread.start()
    thread.join()
    assert limits == [1]


def test_a_file_that_is_no_index(tmp_path: Path) -> None:
    (tmp_path / "index").write_bytes(b"not an index at all")
    with pytest.raises(BundleError, match="expected a FAISS index, found"):
        Index.open(tmp_path / "index", section("hnsw"), dimension=DIMENSION, size=VECTORS, threads=1)


@pytest.mark.parametrize(
    ("kind", "dimension", "size", "found"),
    [
        ("ivf", DIMENSION, VECTORS, "IndexHNSWFlat"),
        ("hnsw", DIMENSION + 1, VECTORS, str(DIMENSION)),
        ("hnsw", DIMENSION, VECTORS + 1, str(VECTORS)),
    ],
)
def test_an_index_that_is_not_what_the_manifest_says(
    tmp_path: Path, kind: ApproximateType, dimension: int, size: int, found: str
) -> None:
    faiss.write_index(build("hnsw", vectors()), str(tmp_path / "index"))
    with pytest.raises(BundleError, match=f"expected .*, found .*{found}"):
        Index.open(tmp_path / "index", section(kind), dimension=dimension, size=size, threads=1)


@pytest.mark.parametrize(
    ("kind", "candidates", "expected"),
    [
        ("ivf", None, r"\('IndexIVF', "),
        ("hnsw", 5, r"\('IndexRefine', 'IndexPreTransform', 'IndexHNSW', 'IndexScalarQuantizer', "),
    ],
)
def test_a_refined_index_that_is_not_what_the_manifest_says(
    tmp_path: Path, kind: ApproximateType, candidates: int | None, expected: str
) -> None:
    faiss.write_index(refined(vectors()), str(tmp_path / "index"))
    found = r"\('IndexRefine', 'IndexPreTransform', 'IndexIVFPQFastScan', 'IndexScalarQuantizer', "
    with pytest.raises(BundleError, match=f"expected .*{expected}.*, found {found}"):
        Index.open(tmp_path / "index", section(kind, candidates), dimension=DIMENSION, size=VECTORS, threads=1)


def test_a_plain_index_where_candidates_are_promised(tmp_path: Path) -> None:
    faiss.write_index(build("ivf", vectors()), str(tmp_path / "index"))
    with pytest.raises(BundleError, match=r"expected .*IndexRefine.*, found .*IndexIVFFlat"):
        Index.open(tmp_path / "index", section("ivf", 5), dimension=DIMENSION, size=VECTORS, threads=1)


def test_an_index_by_distance_is_refused(tmp_path: Path) -> None:
    index = faiss.IndexHNSWFlat(DIMENSION, 16, faiss.METRIC_L2)
    index.add(vectors())
    faiss.write_index(index, str(tmp_path / "index"))
    with pytest.raises(BundleError, match="metric"):
        Index.open(tmp_path / "index", section("hnsw"), dimension=DIMENSION, size=VECTORS, threads=1)
