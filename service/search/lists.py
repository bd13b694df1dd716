"""Candidates from an inverted file: how many lists a query visits depends on the query.

Vectors lie in lists around centres. A query whose answers are few and near finds them in few lists, another needs many.
What tells them apart is how fast the centres' products with the query fall off: every list is visited whose product is
at most a span below that of the tenth best. To a recall of 0.99 that takes half as many vectors of the median query as
so many lists for all.

Letters: Q queries, D dimensions, P of the projection that the centres lie in, N lists, V of them visited, C candidates.
"""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from service.search.compiled import compiled
from service.search.heap import make_heap, push
from service.search.products import inner_products

# The rank of the list that the span is measured from; the first would be that of a single odd vector.
FROM = 10
NO_LIST = -1
# Of FAISS's ways to search lists of 4-bit codes: one query and list at a time, candidates in a reservoir.
BY_QUERY_INTO_RESERVOIR = 11

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]


class InvertedLists:
    """An inverted file of 4-bit codes behind a projection; ``candidates`` may be called from several threads.

    Args:
        index: FAISS's ``IndexPreTransform`` of a ``LinearTransform`` and an ``IndexIVFPQFastScan``.
        span: see the module.
    """

    def __init__(self, index: Any, span: float) -> None:
        self._index = index
        lists: Any = faiss.downcast_index(index.index)
        lists.implem = BY_QUERY_INTO_RESERVOIR
        self._lists = lists
        self._span = span
        transform: Any = faiss.downcast_VectorTransform(index.chain.at(0))
        self._projection_PD = faiss.vector_to_array(transform.A).reshape(transform.d_out, transform.d_in)
        self._centres_NP: Floats = lists.quantizer.reconstruct_n(0, lists.nlist)
        self._sizes_N = np.array([lists.invlists.list_size(each) for each in range(lists.nlist)])

    def candidates(self, queries_QD: Floats, count: int) -> Rows:
        """Rows of C vectors for each query, in any order.

        Args:
            queries_QD: float32.
            count: C, at most as many as there are vectors.
        """
        projected_QP = inner_products(queries_QD, self._projection_PD)
        visited_QV, products_QV = self._visited(projected_QP, count)
        rows_QC = np.empty((len(queries_QD), count), dtype=np.int64)
        scores_QC = np.empty(rows_QC.shape, dtype=np.float32)
        # FAISS's own door in Python takes no parameters, and the number of lists is one.
        parameters: Any = faiss.SearchParametersIVF()
        parameters.nprobe = visited_QV.shape[1]
        self._lists.search_preassigned_c(
            len(queries_QD),
            faiss.swig_ptr(projected_QP),
            count,
            faiss.swig_ptr(visited_QV),
            faiss.swig_ptr(products_QV),
            faiss.swig_ptr(scores_QC),
            faiss.swig_ptr(rows_QC),
            False,
            parameters,
        )
        return rows_QC

    def gaps(self, queries_QD: Floats) -> Floats:
        """How far each list's product is below that of the tenth best, (Q, N); negative for those above it."""
        products_QN = inner_products(inner_products(queries_QD, self._projection_PD), self._centres_NP)
        nth = min(FROM, products_QN.shape[1]) - 1
        return -np.partition(-products_QN, nth, axis=1)[:, nth, None] - products_QN

    def _visited(self, projected_QP: Floats, least: int) -> tuple[Rows, Floats]:
        """The lists that each query visits, padded, and their products."""
        products_QN = inner_products(projected_QP, self._centres_NP)
        chosen = [choose_lists(products_N, self._sizes_N, np.float32(self._span), least) for products_N in products_QN]
        visited_QV = np.full((len(chosen), max(map(len, chosen))), NO_LIST, dtype=np.int64)
        products_QV = np.zeros(visited_QV.shape, dtype=np.float32)
        for query, (lists_V, products_N) in enumerate(zip(chosen, products_QN, strict=True)):
            visited_QV[query, : len(lists_V)] = lists_V
            products_QV[query, : len(lists_V)] = products_N[lists_V]
        return visited_QV, products_QV


@compiled
def choose_lists(products_N: Floats, sizes_N: Rows, span: Any, least: int) -> Rows:
    """Lists to visit, best first: those within the span, and as many more as it takes to hold enough vectors.

    Args:
        products_N: float32, of the centres with the query.
        sizes_N: int64, vectors in each list.
        span: how far below the tenth best product a list may be.
        least: vectors that the lists must hold; all hold so many.
    """
    floor = _tenth_best(products_N) - span
    chosen = np.flatnonzero(products_N >= floor)
    if sizes_N[chosen].sum() < least:
        chosen = np.arange(len(products_N))
    chosen = chosen[np.argsort(-products_N[chosen], kind="mergesort")]
    held, count = 0, 0
    while count < len(chosen) and (held < least or products_N[chosen[count]] >= floor):
        held += sizes_N[chosen[count]]
        count += 1
    return chosen[:count]


@compiled
def _tenth_best(products_N: Floats) -> Any:
    count = min(FROM, len(products_N))
    ids_K, best_K = np.arange(count), products_N[:count].copy()
    make_heap(ids_K, best_K)
    for place in range(count, len(products_N)):
        if products_N[place] > best_K[0]:
            push(ids_K, best_K, place, products_N[place])
    return best_K[0]
