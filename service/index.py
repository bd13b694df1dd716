"""Inner-product search: exactly by one matrix product, or in an approximate FAISS index; full answers, bounded threads.

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
from service.topk import TopK, select_in_blocks

# A matrix product first repacks the vectors for its kernel. Up to this many queries, one pass each is cheaper: measured
# at N = 28077 and 200000, D = 256.
QUERIES_ONE_BY_ONE = 3
NOT_FOUND = -1

Vectors = NDArray[np.float32]

CLASSES: dict[IndexType, type[Any]] = {"flat": faiss.IndexFlat, "hnsw": faiss.IndexHNSW, "ivf": faiss.IndexIVF}


class Index:
    """A FAISS index over vectors 0 .. N-1; ``search`` may be called from several threads.

    Flat indexes answer exactly, ties by row. Approximate ones answer as they do, but always in full: a query for which
    they find too few vectors is searched again exactly.
    """

    def __init__(self, index: Any, kind: IndexType, *, threads: int) -> None:
        self._index = index
        self._vectors_ND = _stored_vectors(index) if kind == "flat" else None
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
            threads: that one search of an approximate index may use; exact search follows OPENBLAS_NUM_THREADS.

        Raises:
            BundleError: the file is no such index.
        """
        # A flat file maps its vectors to addresses that are no multiple of four, which numpy would copy every time.
        flags = 0 if kind == "flat" else faiss.IO_FLAG_MMAP_IFC
        try:
            index = faiss.read_index(str(path), flags)
        except RuntimeError as error:
            raise BundleError(f"{path}: expected a FAISS index, found: {error}") from error
        expected = (CLASSES[kind].__name__, faiss.METRIC_INNER_PRODUCT, dimension, size)
        found = (type(index).__name__, index.metric_type, index.d, index.ntotal)
        if not isinstance(index, CLASSES[kind]) or found[1:] != expected[1:]:
            raise BundleError(f"{path}: expected (type, metric, dimension, vectors) {expected}, found {found}")
        return cls(index, kind, threads=threads)

    def search(self, queries_QD: Vectors, k: int) -> TopK:
        """The min(k, N) vectors with the largest inner products, best first, ties by row."""
        queries_QD = np.ascontiguousarray(queries_QD)
        if self._vectors_ND is not None:
            return exact_search(self._vectors_ND, queries_QD, k)
        k = min(k, self._index.ntotal)
        faiss.omp_set_num_threads(self._threads)  # OpenMP keeps this number for each calling thread
        scores_QK, ids_QK = self._index.search(queries_QD, k)
        short_Q = (ids_QK == NOT_FOUND).any(axis=1)
        if short_Q.any():
            scores_QK[short_Q], ids_QK[short_Q] = self._search_in_full(queries_QD[short_Q], k)
        return _ordered(ids_QK, scores_QK)

    def _search_in_full(self, queries_QD: Vectors, k: int) -> tuple[Vectors, NDArray[np.int64]]:
        """Scores and rows by a search that looks at every vector of an approximate index."""
        parameters, index = None, self._index
        if self._kind == "ivf":
            parameters = faiss.SearchParametersIVF()
            parameters.nprobe = index.nlist
        else:
            index = faiss.downcast_index(index.storage)
        scores_QK, ids_QK = index.search(queries_QD, k, params=parameters)
        return scores_QK, ids_QK


def exact_search(vectors_ND: Vectors, queries_QD: Vectors, k: int) -> TopK:
    """The min(k, N) vectors with the largest inner products, best first, ties by row.

    FAISS's own exact search costs a batch of queries as much as each of them alone; one product for all costs a batch
    of 32 a quarter of that (``python -m tests.benchmarks.decoders``).
    """

    def scores(low: int, high: int) -> Vectors:
        block_BD = vectors_ND[low:high]
        if len(queries_QD) <= QUERIES_ONE_BY_ONE:
            return np.stack([block_BD @ query_D for query_D in queries_QD])
        return (block_BD @ queries_QD.T).T

    return select_in_blocks(scores, len(queries_QD), len(vectors_ND), k)


def _stored_vectors(index: Any) -> Vectors:
    """The vectors of a flat index, without a copy; they live as long as the index does."""
    stored: Vectors = faiss.rev_swig_ptr(index.get_xb(), index.ntotal * index.d).reshape(index.ntotal, index.d)
    return stored


def _ordered(ids_QK: NDArray[np.int64], scores_QK: Vectors) -> TopK:
    order_QK = np.lexsort((ids_QK, -scores_QK), axis=1)
    return TopK(np.take_along_axis(ids_QK, order_QK, axis=1), np.take_along_axis(scores_QK, order_QK, axis=1))
