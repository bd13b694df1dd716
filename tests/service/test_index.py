from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from numpy.typing import NDArray

from service.bundle.manifest import ApproximateType
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


def opened(tmp_path: Path, kind: ApproximateType, stored: NDArray[np.float32], threads: int = 1) -> Index:
    faiss.write_index(build(kind, stored), str(tmp_path / "index"))
    return Index.open(tmp_path / "index", kind=kind, dimension=DIMENSION, size=len(stored), threads=threads)


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
        Index.open(tmp_path / "index", kind="hnsw", dimension=DIMENSION, size=VECTORS, threads=1)


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
        Index.open(tmp_path / "index", kind=kind, dimension=dimension, size=size, threads=1)


def test_an_index_by_distance_is_refused(tmp_path: Path) -> None:
    index = faiss.IndexHNSWFlat(DIMENSION, 16, faiss.METRIC_L2)
    index.add(vectors())
    faiss.write_index(index, str(tmp_path / "index"))
    with pytest.raises(BundleError, match="metric"):
        Index.open(tmp_path / "index", kind="hnsw", dimension=DIMENSION, size=VECTORS, threads=1)
