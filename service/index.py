"""Approximate inner-product search in a FAISS index: full answers, bounded threads.

Letters: Q queries, D dimensions, N vectors, K answers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from service.bundle.searching import IndexSection, IndexType
from service.errors import BundleError
from service.topk import TopK, ordered

NOT_FOUND = -1

Vectors = NDArray[np.float32]

CLASSES: dict[IndexType, type[Any]] = {"hnsw": faiss.IndexHNSW, "ivf": faiss.IndexIVF}


class Index:
    """A FAISS index over vectors 0 .. N-1; ``search`` may be called from several threads.

    It answers as it does, but always in full: a query for which it finds too few vectors is searched again exactly, or
    as exactly as its codes are.
    """

    def __init__(self, index: Any, *, candidates: int | None, threads: int) -> None:
        self._index = index
        self._candidates = candidates or 0
        self._threads = threads

    @classmethod
    def open(cls, path: Path, section: IndexSection, *, dimension: int, size: int, threads: int) -> Index:
        """Map an index file, as far as FAISS maps its parts, and check it against the manifest.

        Args:
            path: the file.
            section: what the manifest says about it; its type is approximate.
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
        parts, classes = _parts(index), _classes(section)
        expected = (*(each.__name__ for each in classes), faiss.METRIC_INNER_PRODUCT, dimension, size)
        found = (*(type(part).__name__ for part in parts), index.metric_type, index.d, index.ntotal)
        fits = len(parts) == len(classes) and all(map(isinstance, parts, classes))
        if not fits or found[-3:] != expected[-3:]:
            raise BundleError(f"{path}: expected (types, metric, dimension, vectors) {expected}, found {found}")
        return cls(index, candidates=section.candidates, threads=threads)

    def search(self, queries_QD: Vectors, k: int) -> TopK:
        """The min(k, N) vectors that the index finds, best first, ties by row.

        Up to the number of candidates, an answer is the beginning of every longer one.
        """
        queries_QD = np.ascontiguousarray(queries_QD)
        k = min(k, self._index.ntotal)
        wide = min(max(k, self._candidates), self._index.ntotal)
        faiss.omp_set_num_threads(self._threads)  # OpenMP keeps this number for each calling thread
        scores_QK, ids_QK = self._index.search(queries_QD, wide)
        short_Q = (ids_QK == NOT_FOUND).any(axis=1)
        if short_Q.any():
            scores_QK[short_Q], ids_QK[short_Q] = self._search_in_full(queries_QD[short_Q], wide)
        return ordered(ids_QK, scores_QK).first(k)

    def _search_in_full(self, queries_QD: Vectors, k: int) -> tuple[Vectors, NDArray[np.int64]]:
        """Scores and rows by a search that looks at every vector."""
        parameters, index = None, self._index
        if isinstance(index, faiss.IndexRefine):
            index = faiss.downcast_index(index.refine_index)
        elif isinstance(index, faiss.IndexHNSW):
            index = faiss.downcast_index(index.storage)
        else:
            parameters = faiss.SearchParametersIVF()
            parameters.nprobe = index.nlist
        scores_QK, ids_QK = index.search(queries_QD, k, params=parameters)
        return scores_QK, ids_QK


def _classes(section: IndexSection) -> tuple[type[Any], ...]:
    """What `_parts` of an index must be."""
    searched = CLASSES[section.type]
    if section.candidates is None:
        return (searched,)
    return faiss.IndexRefine, faiss.IndexPreTransform, searched, faiss.IndexScalarQuantizer


def _parts(index: Any) -> tuple[Any, ...]:
    """The index, and those that it is made of: of a refined one, what finds candidates and what scores them."""
    if isinstance(index, faiss.IndexRefine):
        refined = faiss.downcast_index(index.refine_index)
        return index, *_parts(faiss.downcast_index(index.base_index)), refined
    if isinstance(index, faiss.IndexPreTransform):
        return index, faiss.downcast_index(index.index)
    return (index,)
