"""The k best of many scores, exactly: score descending, ties by label row ascending.

Letters: Q queries, L labels, K answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.search.compiled import compiled
from service.search.heap import make_heap, push, sort_heap

# Scores kept until their best are selected, however many labels there are: 16 MB in blocks of labels. In blocks of
# queries, which share the work of a product among more of them, 64 MB.
DENSE_SCORES = 1 << 22
DENSE_SCORES_BY_QUERY = 1 << 24


@dataclass(frozen=True)
class TopK:
    """The best labels of each query, best first.

    Attributes:
        ids_QK: int64 label rows.
        scores_QK: float32, descending in each row as decoders give them.
    """

    ids_QK: NDArray[np.int64]
    scores_QK: NDArray[np.float32]

    def first(self, k: int) -> TopK:
        """The best k of each query, or all where there are fewer."""
        return TopK(self.ids_QK[:, :k], self.scores_QK[:, :k])

    def of(self, query: int) -> TopK:
        """The answer to one query, Q = 1."""
        return TopK(self.ids_QK[query : query + 1], self.scores_QK[query : query + 1])


def select(scores_QL: NDArray[np.float32], k: int) -> TopK:
    """Pick the k best labels of each query, or all L when k is larger.

    Args:
        scores_QL: float32 (Q, L), Q and L at least 1, infinities allowed, NaN not.
        k: at least 1.

    Returns:
        Answers with K = min(k, L).
    """
    Q, L = scores_QL.shape
    ids_QK = np.empty((Q, min(k, L)), dtype=np.int64)
    best_QK = np.empty(ids_QK.shape, dtype=np.float32)
    _select(np.ascontiguousarray(scores_QL), ids_QK, best_QK)
    return TopK(ids_QK, best_QK)


@compiled
def _select(scores_QL: NDArray[np.float32], ids_QK: NDArray[np.int64], best_QK: NDArray[np.float32]) -> None:
    """Fill in the best of each query: a heap with the worst on top, which few labels displace, and at last a sort."""
    L, K = scores_QL.shape[1], ids_QK.shape[1]
    for query in range(len(scores_QL)):
        scores_L, ids_K, best_K = scores_QL[query], ids_QK[query], best_QK[query]
        for label in range(K):
            ids_K[label], best_K[label] = label, scores_L[label]
        make_heap(ids_K, best_K)
        for label in range(K, L):
            # Asked here, too: in front of a call the loop would be ten times as slow. Of equal ones the earlier stays.
            if scores_L[label] > best_K[0]:
                push(ids_K, best_K, label, scores_L[label])
        sort_heap(ids_K, best_K)


def select_in_blocks(
    scores: Callable[[int, int], NDArray[np.float32]], query_count: int, label_count: int, k: int
) -> TopK:
    """Pick the k best of scores that are never all in memory.

    Args:
        scores: of the labels from low to (not including) high, as `select` takes them.
        query_count: Q.
        label_count: L, at least 1.
        k: at least 1.

    Returns:
        Answers with K = min(k, L).
    """
    parts = []
    for low, high in ranges(label_count, DENSE_SCORES // query_count):
        part = select(scores(low, high), k)
        parts.append(TopK(part.ids_QK + low, part.scores_QK))
    return merge(parts, k)


def in_turn(
    answers: Callable[[int, int], TopK], query_count: int, scores_per_query: int, most_scores: int | None = None
) -> TopK:
    """Answer some of the queries at a time, so that the scores of all are never in memory.

    Args:
        answers: to the queries from low to (not including) high.
        query_count: Q, at least 1.
        scores_per_query: how many numbers are held for each query meanwhile.
        most_scores: how many may be held; None: `DENSE_SCORES_BY_QUERY`.
    """
    step = (most_scores or DENSE_SCORES_BY_QUERY) // scores_per_query
    parts = [answers(low, high) for low, high in ranges(query_count, step)]
    return TopK(np.concatenate([part.ids_QK for part in parts]), np.concatenate([part.scores_QK for part in parts]))


def ranges(count: int, step: int) -> Iterator[tuple[int, int]]:
    """Cut 0 .. count into ranges (low, high) of at most ``step`` and at least 1."""
    step = max(1, step)
    for low in range(0, count, step):
        yield low, min(count, low + step)


def select_from(
    queries: NDArray[np.int64], ids: NDArray[np.int64], scores: NDArray[np.float32], query_count: int, k: int
) -> TopK:
    """Pick the k best of candidates that are listed one by one.

    Args:
        queries: query of each candidate, ascending; every query has at least k candidates.
        ids: label row of each candidate, ascending within a query.
        scores: score of each candidate.
        query_count: Q.
        k: K.
    """
    order = np.lexsort((-scores, queries))  # stable, so equal scores stay in the order of their labels
    starts_Q = np.searchsorted(queries, np.arange(query_count))
    best_QK = order[starts_Q[:, None] + np.arange(k)]
    return TopK(ids[best_QK], scores[best_QK])


def ordered(ids_QK: NDArray[np.int64], scores_QK: NDArray[np.float32]) -> TopK:
    """Answers in the order of their scores, ties by row."""
    order_QK = np.lexsort((ids_QK, -scores_QK), axis=1)
    return TopK(np.take_along_axis(ids_QK, order_QK, axis=1), np.take_along_axis(scores_QK, order_QK, axis=1))


def merge(parts: Sequence[TopK], k: int) -> TopK:
    """Join answers over disjoint sets of labels into the k best (fewer when the parts hold fewer)."""
    if len(parts) == 1:
        return TopK(parts[0].ids_QK[:, :k], parts[0].scores_QK[:, :k])
    ids = np.concatenate([part.ids_QK for part in parts], axis=1)
    scores = np.concatenate([part.scores_QK for part in parts], axis=1)
    return ordered(ids, scores).first(k)
