"""Exact inner-product search that looks at most vectors in part.

Label vectors lie in few directions more than in others. In the coordinates of these axes the first C of D numbers give
most of a product, and the rest of it is at most the product of what is left of both lengths. So the products of C
numbers, for all labels at once, tell which labels cannot be among the best; for the others the whole product is
computed. It does not depend on company: a query's scores are the same to the bit in every batch.

Letters: Q queries, D dimensions, C leading coordinates, L labels, B of them in a block, K answers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from service.search.compiled import compiled, vectorised
from service.search.exact import QUERIES, SCORES
from service.search.heap import make_heap, push, sort_heap
from service.search.products import inner_product
from service.search.topk import TopK, in_turn
from service.sessions import FLOAT_TENSOR, check_floats, check_inputs, open_session

LEADING = "leading"

Floats = NDArray[np.float32]

# More than all roundings amount to: of products, as a share of both lengths, and of the square of a query's length.
PRODUCT_ROUNDING, SQUARE_ROUNDING = 2.0**-16, 2.0**-18
# Labels that are passed over with one comparison.
BLOCK = 32


class LeadingSearch:
    """A search among labels 0 .. L-1; ``search`` may be called from several threads.

    Args:
        session: the graph, from queries to leading coordinates of their own and products of those with the labels'.
        vectors_LD: the whole vectors.
        rests_L: the length of each vector without its leading coordinates.
    """

    def __init__(self, session: onnxruntime.InferenceSession, vectors_LD: Floats, rests_L: Floats) -> None:
        self._session = session
        self._vectors_LD = vectors_LD
        self._rests_L = rests_L
        self._longest = float(np.sqrt(np.einsum("ld,ld->l", vectors_LD, vectors_LD).max()))

    @classmethod
    def open(cls, path: Path, vectors_LD: Floats, rests_L: Floats, *, leading: int, threads: int) -> LeadingSearch:
        """Load a search graph, which finds leading coordinates in the file beside it, and check it.

        Args:
            path: the graph's file.
            vectors_LD: see the class.
            rests_L: see the class.
            leading: C.
            threads: that one search may use.

        Raises:
            BundleError: the graph cannot be loaded, or has another input or output.
        """
        size, dimension = vectors_LD.shape
        session = open_session(path, device="cpu", threads=threads)
        check_inputs(path, session, {QUERIES: FLOAT_TENSOR})
        check_floats(path, "input", session.get_inputs(), {QUERIES: (dimension,)})
        check_floats(path, "output", session.get_outputs(), {SCORES: (size,), LEADING: (leading,)})
        return cls(session, vectors_LD, rests_L)

    def search(self, queries_QD: Floats, k: int) -> TopK:
        """The min(k, L) vectors with the largest inner products, best first, ties by row."""
        k = min(k, len(self._vectors_LD))
        queries_QD = np.ascontiguousarray(queries_QD)
        return in_turn(lambda low, high: self._answers(queries_QD[low:high], k), len(queries_QD), len(self._vectors_LD))

    def _answers(self, queries_QD: Floats, k: int) -> TopK:
        scores_QL, leading_QC = self._session.run([SCORES, LEADING], {QUERIES: queries_QD})
        squares_Q = _squares(queries_QD)
        rests_Q = np.sqrt(np.maximum(squares_Q - _squares(leading_QC), 0) + SQUARE_ROUNDING * squares_Q)
        slacks_Q = PRODUCT_ROUNDING * self._longest * np.sqrt(squares_Q)
        ids_QK = np.empty((len(queries_QD), k), dtype=np.int64)
        best_QK = np.empty(ids_QK.shape, dtype=np.float32)
        _search(
            scores_QL,
            rests_Q.astype(np.float32),
            slacks_Q.astype(np.float32),
            self._rests_L,
            queries_QD,
            self._vectors_LD,
            ids_QK,
            best_QK,
        )
        return TopK(ids_QK, best_QK)


def _squares(vectors: Floats) -> NDArray[np.float64]:
    squares_Q: NDArray[np.float64] = np.square(vectors, dtype=np.float64).sum(axis=1)
    return squares_Q


@compiled
def _search(
    scores_QL: Floats,
    rests_Q: Floats,
    slacks_Q: Floats,
    rests_L: Floats,
    queries_QD: Floats,
    vectors_LD: Floats,
    ids_QK: NDArray[np.int64],
    best_QK: Floats,
) -> None:
    """Fill in the best of each query.

    A heap of those with the best leading products, by their whole products: it holds nearly the best already, so that
    few of the others may still belong to them.
    """
    for query in range(len(scores_QL)):
        ids_K, best_K, query_D = ids_QK[query], best_QK[query], queries_QD[query]
        _best_of_leading(scores_QL[query], ids_K, best_K)
        seeds_K = np.sort(ids_K)
        for place in range(len(ids_K)):
            best_K[place] = inner_product(vectors_LD[ids_K[place]], query_D)
        make_heap(ids_K, best_K)
        _take_better(
            scores_QL[query], rests_Q[query], slacks_Q[query], rests_L, query_D, vectors_LD, seeds_K, ids_K, best_K
        )
        sort_heap(ids_K, best_K)


@compiled
def _best_of_leading(scores_L: Floats, ids_K: NDArray[np.int64], best_K: Floats) -> None:
    """A heap of the labels with the largest leading products."""
    L, K = len(scores_L), len(ids_K)
    for label in range(K):
        ids_K[label], best_K[label] = label, scores_L[label]
    make_heap(ids_K, best_K)
    for low in range(K, L, BLOCK):
        high = min(L, low + BLOCK)
        if _largest(scores_L[low:high]) > best_K[0]:
            for label in range(low, high):
                if scores_L[label] > best_K[0]:
                    push(ids_K, best_K, label, scores_L[label])


@compiled
def _take_better(
    scores_L: Floats,
    rest: Any,
    slack: Any,
    rests_L: Floats,
    query_D: Floats,
    vectors_LD: Floats,
    seeds_K: NDArray[np.int64],
    ids_K: NDArray[np.int64],
    best_K: Floats,
) -> None:
    """Put labels that are not among the seeds into the heap, where they are better than its worst."""
    L, K, seed = len(scores_L), len(ids_K), 0
    for low in range(0, L, BLOCK):
        high = min(L, low + BLOCK)
        if _largest_bound(scores_L[low:high], rest, rests_L[low:high]) + slack < best_K[0]:
            continue
        for label in range(low, high):
            if scores_L[label] + rest * rests_L[label] + slack < best_K[0]:
                continue
            while seed < K and seeds_K[seed] < label:
                seed += 1
            if seed < K and seeds_K[seed] == label:
                continue
            push(ids_K, best_K, label, inner_product(vectors_LD[label], query_D))


@vectorised
def _largest(scores_B: Floats) -> Any:
    largest = scores_B[0]
    for score in scores_B:
        largest = score if score > largest else largest
    return largest


@vectorised
def _largest_bound(scores_B: Floats, rest: Any, rests_B: Floats) -> Any:
    """Of the products that the labels of a block may reach; written so that several are compared at once."""
    largest = scores_B[0]
    for label in range(len(scores_B)):
        bound = scores_B[label] + rest * rests_B[label]
        largest = bound if bound > largest else largest
    return largest
