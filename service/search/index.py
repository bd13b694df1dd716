"""Approximate inner-product search: FAISS names candidates, and codes of the vectors say how good they are.

Letters: Q queries, D dimensions, N vectors, C candidates, K answers.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from service.bundle.searching import ApproximateType, IndexSection
from service.errors import BundleError
from service.search.codes import Codes
from service.search.lists import InvertedLists
from service.search.topk import TopK, select

NOT_FOUND = -1

Vectors = NDArray[np.float32]
Rows = NDArray[np.int64]

CLASSES: dict[ApproximateType, type[Any]] = {"hnsw": faiss.IndexHNSW, "ivf": faiss.IndexIVFPQFastScan}


class Index:
    """Vectors 0 .. N-1; ``search`` may be called from several threads.

    Answers are always full: a query for which too few candidates are found is searched again among all vectors.

    Args:
        finder: FAISS's index of candidates, see `model_export.faiss_index`.
        codes: of the vectors.
        candidates: how many are scored, or as many as are asked for, if that is more.
        span: of an inverted file, see `service.search.lists`; None for a graph.
        threads: that one search may use.
    """

    def __init__(self, finder: Any, codes: Codes, *, candidates: int, span: float | None, threads: int) -> None:
        self._size = finder.ntotal
        self._codes = codes
        self._candidates = candidates
        self._threads = threads
        self._find: Callable[[Vectors, int], Rows]
        if span is None:
            self._find = lambda queries_QD, count: finder.search(queries_QD, count)[1]
        else:
            self._find = InvertedLists(finder, span).candidates

    @classmethod
    def open(cls, path: Path, section: IndexSection, codes: Codes, *, dimension: int, threads: int) -> Index:
        """Map an index file, as far as FAISS maps its parts, and check it against the manifest.

        Args:
            path: the file.
            section: what the manifest says about it; its type is approximate.
            codes: of the vectors.
            dimension: D.
            threads: that one search may use.

        Raises:
            BundleError: the file is no such index.
        """
        try:
            index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
        except RuntimeError as error:
            raise BundleError(f"{path}: expected a FAISS index, found: {error}") from error
        assert section.type != "flat"
        assert section.candidates is not None
        searched = CLASSES[section.type]
        parts, size = _parts(index), len(codes.codes_LW)
        expected = ("IndexPreTransform", searched.__name__, faiss.METRIC_INNER_PRODUCT, dimension, size)
        found = (*(type(part).__name__ for part in parts), index.metric_type, index.d, index.ntotal)
        fits = len(parts) == 2 and isinstance(parts[1], searched)
        if not fits or found[-3:] != expected[-3:]:
            raise BundleError(f"{path}: expected (types, metric, dimension, vectors) {expected}, found {found}")
        if section.type == "ivf" and not _knows_rows(parts[1], size):
            raise BundleError(f"{path}: expected rows in 0..{size - 1} in all lists, found one outside")
        return cls(index, codes, candidates=section.candidates, span=section.span, threads=threads)

    def search(self, queries_QD: Vectors, k: int) -> TopK:
        """The min(k, N) best of the candidates, best first, ties by row.

        Up to the number of candidates, an answer is the beginning of every longer one.
        """
        queries_QD = np.ascontiguousarray(queries_QD)
        k = min(k, self._size)
        faiss.omp_set_num_threads(self._threads)  # OpenMP keeps this number for each calling thread
        rows_QC = self._find(queries_QD, min(max(k, self._candidates), self._size))
        rows_QC.sort(axis=1)  # memory is read in order, and of equal scores the first row is the better
        short_Q = rows_QC[:, 0] == NOT_FOUND
        rows_QC[short_Q] = 0  # scored like the others, and then replaced
        best = select(self._codes.score(queries_QD, rows_QC), k)
        answers = TopK(np.take_along_axis(rows_QC, best.ids_QK, axis=1), best.scores_QK)
        if short_Q.any():
            full = self._codes.search(queries_QD[short_Q], k)
            answers.ids_QK[short_Q], answers.scores_QK[short_Q] = full.ids_QK, full.scores_QK
        return answers


def _parts(index: Any) -> tuple[Any, ...]:
    """The index and, behind a projection, the one that is searched."""
    if isinstance(index, faiss.IndexPreTransform):
        return index, faiss.downcast_index(index.index)
    return (index,)


def _knows_rows(lists: Any, size: int) -> bool:
    """Whether lists hold rows of vectors that there are: codes are read at any row that they name."""
    entries = lists.invlists
    for number in range(lists.nlist):
        rows = faiss.rev_swig_ptr(entries.get_ids(number), entries.list_size(number))
        if rows.size and (rows.min() < 0 or rows.max() >= size):
            return False
    return True
