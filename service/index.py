"""Inner-product search in a FAISS index: full answers, exact ties, bounded threads.

Letters: Q queries, D dimensions, N vectors, K answers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from service.bundle.manifest import IndexType
from service.errors import BundleError
from service.topk import TopK

# Vectors fetched beyond K by exact search, so that ties across the boundary are seen at the first try.
TIE_MARGIN = 8
TIE_GROWTH = 4
NOT_FOUND = -1

CLASSES: dict[IndexType, type[Any]] = {"flat": faiss.IndexFlat, "hnsw": faiss.IndexHNSW, "ivf": faiss.IndexIVF}


class Index:
    """A FAISS index over vectors 0 .. N-1; ``search`` may be called from several threads.

    Flat indexes answer exactly, ties by row. Approximate ones answer as they do, but always in full: a query for which
    they find too few vectors is searched again exactly.
    """

    def __init__(self, index: Any, kind: IndexType, *, threads: int) -> None:
        self._index = index
        self._kind = kind
        self._threads = threads

    @classmethod
    def open(cls, path: Path, *, kind: IndexType, dimension: int, size: int, threads: int) -> Index:
        """Load an index file and check it against the manifest.

        Args:
            path: the file.
            kind: type that the manifest names.
            dimension: D.
            size: N.
            threads: that one search may use.

        Raises:
            BundleError: the file is no such index.
        """
        try:
            index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
        except RuntimeError as error:
            raise BundleError(f"{path}: expected a FAISS index, found: {error}") from error
        expected = (CLASSES[kind].__name__, faiss.METRIC_INNER_PRODUCT, dimension, size)
        found = (type(index).__name__, index.metric_type, index.d, index.ntotal)
        if not isinstance(index, CLASSES[kind]) or found[1:] != expected[1:]:
            raise BundleError(f"{path}: expected (type, metric, dimension, vectors) {expected}, found {found}")
        return cls(index, kind, threads=threads)

    def search(self, queries_QD: NDArray[np.float32], k: int) -> TopK:
        """The min(k, N) vectors with the largest inner products, best first, ties by row."""
        k = min(k, self._index.ntotal)
        faiss.omp_set_num_threads(self._threads)  # OpenMP keeps this number for each calling thread
        queries_QD = np.ascontiguousarray(queries_QD)
        if self._kind == "flat":
            return self._search_exactly(queries_QD, k, k + TIE_MARGIN)
        scores_QK, ids_QK = self._index.search(queries_QD, k)
        top = _ordered(ids_QK, scores_QK, k)
        short_Q = (ids_QK == NOT_FOUND).any(axis=1)
        if short_Q.any():
            _replace(top, short_Q, self._search_exactly(queries_QD[short_Q], k, k + TIE_MARGIN))
        return top

    def _search_exactly(self, queries_QD: NDArray[np.float32], k: int, width: int) -> TopK:
        width = min(width, self._index.ntotal)
        scores_QW, ids_QW = self._fetch(queries_QD, width)
        top = _ordered(ids_QW, scores_QW, k)
        # Where the last fetched score equals the k-th, unseen vectors may tie with it and have smaller rows.
        open_Q = scores_QW[:, -1] == top.scores_QK[:, -1]
        if width < self._index.ntotal and open_Q.any():
            _replace(top, open_Q, self._search_exactly(queries_QD[open_Q], k, width * TIE_GROWTH))
        return top

    def _fetch(self, queries_QD: NDArray[np.float32], width: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Scores and rows by exact search, whatever the index."""
        parameters, index = None, self._index
        if self._kind == "ivf":
            parameters = faiss.SearchParametersIVF()
            parameters.nprobe = index.nlist
        elif self._kind == "hnsw":
            index = faiss.downcast_index(index.storage)
        scores_QW, ids_QW = index.search(queries_QD, width, params=parameters)
        return scores_QW, ids_QW


def _ordered(ids_QW: NDArray[np.int64], scores_QW: NDArray[np.float32], k: int) -> TopK:
    order_QK = np.lexsort((ids_QW, -scores_QW), axis=1)[:, :k]
    return TopK(np.take_along_axis(ids_QW, order_QK, axis=1), np.take_along_axis(scores_QW, order_QK, axis=1))


def _replace(top: TopK, rows_Q: NDArray[np.bool_], better: TopK) -> None:
    top.ids_QK[rows_Q] = better.ids_QK
    top.scores_QK[rows_Q] = better.scores_QK
