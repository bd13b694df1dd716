"""Approximate inner-product search in a FAISS index: full answers, bounded threads.

Letters: Q queries, D dimensions, N vectors, K answers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from service.bundle.manifest import ApproximateType
from service.errors import BundleError
from service.topk import TopK

NOT_FOUND = -1

Vectors = NDArray[np.float32]

CLASSES: dict[ApproximateType, type[Any]] = {"hnsw": faiss.IndexHNSW, "ivf": faiss.IndexIVF}


class Index:
    """A FAISS index over vectors 0 .. N-1; ``search`` may be called from several threads.

    It answers as it does, but always in full: a query for which it finds too few vectors is searched again exactly.
    """

    def __init__(self, index: Any, kind: ApproximateType, *, threads: int) -> None:
        self._index = index
        self._kind = kind
        self._threads = threads

    @classmethod
    def open(cls, path: Path, *, kind: ApproximateType, dimension: int, size: int, threads: int) -> Index:
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

    def search(self, queries_QD: Vectors, k: int) -> TopK:
        """The min(k, N) vectors that the index finds, best first, ties by row."""
        queries_QD = np.ascontiguousarray(queries_QD)
        k = min(k, self._index.ntotal)
        faiss.omp_set_num_threads(self._threads)  # OpenMP keeps this number for each calling thread
        scores_QK, ids_QK = self._index.search(queries_QD, k)
        short_Q = (ids_QK == NOT_FOUND).any(axis=1)
        if short_Q.any():
            scores_QK[short_Q], ids_QK[short_Q] = self._search_in_full(queries_QD[short_Q], k)
        return _ordered(ids_QK, scores_QK)

    def _search_in_full(self, queries_QD: Vectors, k: int) -> tuple[Vectors, NDArray[np.int64]]:
        """Scores and rows by a search that looks at every vector."""
        parameters, index = None, self._index
        if self._kind == "ivf":
            parameters = faiss.SearchParametersIVF()
            parameters.nprobe = index.nlist
        else:
            index = faiss.downcast_index(index.storage)
        scores_QK, ids_QK = index.search(queries_QD, k, params=parameters)
        return scores_QK, ids_QK


def _ordered(ids_QK: NDArray[np.int64], scores_QK: Vectors) -> TopK:
    order_QK = np.lexsort((ids_QK, -scores_QK), axis=1)
    return TopK(np.take_along_axis(ids_QK, order_QK, axis=1), np.take_along_axis(scores_QK, order_QK, axis=1))
