"""The k best of many scores, exactly: score descending, ties by label row ascending. Pure numpy.

Letters: Q queries, L labels, K answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Maxima are taken over strided groups of labels. Measured at L = 28077 and 1 M: fewer groups let more candidates
# through, more cost more to partition.
GROUPS = 1024
GROUPS_PER_ANSWER = 8
ROWS_AT_ONCE = 16

# Scores kept until their best are selected: 16 MB, however many labels there are.
DENSE_SCORES = 1 << 22


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


def select(scores_QL: NDArray[np.float32], k: int) -> TopK:
    """Pick the k best labels of each query, or all L when k is larger.

    Args:
        scores_QL: float32 (Q, L), Q and L at least 1, -inf allowed, NaN not. A transposed (L, Q) array is as fast.
        k: at least 1.

    Returns:
        Answers with K = min(k, L).
    """
    Q, L = scores_QL.shape
    k = min(k, L)
    thresholds_Q = _lower_bounds(scores_QL, k)
    queries, ids = _candidates(scores_QL, thresholds_Q)
    scores = scores_QL[queries, ids]
    # Above the bound lie few scores, but on it may lie all L: only the first k ties of a query can be answers.
    kept = _first_of_each_query(scores == thresholds_Q[queries], queries, Q, k)
    return select_from(queries[kept], ids[kept], scores[kept], Q, k)


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


def merge(parts: Sequence[TopK], k: int) -> TopK:
    """Join answers over disjoint sets of labels into the k best (fewer when the parts hold fewer)."""
    if len(parts) == 1:
        return TopK(parts[0].ids_QK[:, :k], parts[0].scores_QK[:, :k])
    ids = np.concatenate([part.ids_QK for part in parts], axis=1)
    scores = np.concatenate([part.scores_QK for part in parts], axis=1)
    best_QK = np.lexsort((ids, -scores), axis=1)[:, :k]
    return TopK(np.take_along_axis(ids, best_QK, axis=1), np.take_along_axis(scores, best_QK, axis=1))


def _lower_bounds(scores_QL: NDArray[np.float32], k: int) -> NDArray[np.float32]:
    """A score of each query that at least k labels reach: the k-th largest maximum over disjoint groups of labels."""
    Q, L = scores_QL.shape
    groups = min(L, max(GROUPS, GROUPS_PER_ANSWER * k))
    whole = L - L % groups
    # Group g holds the labels g, g + groups, ...: the reduction runs along memory.
    maxima_QG = scores_QL[:, :whole].reshape(Q, -1, groups).max(axis=1)
    rest = L - whole
    np.maximum(maxima_QG[:, :rest], scores_QL[:, whole:], out=maxima_QG[:, :rest])
    bounds_Q: NDArray[np.float32] = np.partition(np.ascontiguousarray(maxima_QG), groups - k, axis=1)[:, groups - k]
    return bounds_Q


def _candidates(
    scores_QL: NDArray[np.float32], thresholds_Q: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Queries and labels, ordered by query, then label, whose scores reach the query's threshold."""
    Q, L = scores_QL.shape
    if scores_QL.flags.c_contiguous:
        return np.divmod(np.flatnonzero(scores_QL >= thresholds_Q[:, None]), L)
    # Candidates are few: sorting them is cheaper than turning the scores into the other order.
    ids, queries = np.divmod(np.flatnonzero(_reaching(scores_QL.T, thresholds_Q)), Q)
    order = np.argsort(queries, kind="stable")
    return queries[order], ids[order]


def _reaching(scores_LQ: NDArray[np.float32], thresholds_Q: NDArray[np.float32]) -> NDArray[np.bool_]:
    """``scores_LQ >= thresholds_Q``, three times as fast: numpy's inner loop runs over many rows at once."""
    L, Q = scores_LQ.shape
    scores_LQ = np.ascontiguousarray(scores_LQ)
    reached_LQ = np.empty((L, Q), dtype=np.bool_)
    whole = L - L % ROWS_AT_ONCE
    wide = (-1, ROWS_AT_ONCE * Q)
    np.greater_equal(
        scores_LQ[:whole].reshape(wide), np.tile(thresholds_Q, ROWS_AT_ONCE), out=reached_LQ[:whole].reshape(wide)
    )
    np.greater_equal(scores_LQ[whole:], thresholds_Q, out=reached_LQ[whole:])
    return reached_LQ


def _first_of_each_query(
    tied: NDArray[np.bool_], queries: NDArray[np.int64], query_count: int, k: int
) -> NDArray[np.bool_]:
    """True for candidates that are not tied, and for the first k tied ones of each query."""
    ties = np.cumsum(tied)
    starts_Q = np.searchsorted(queries, np.arange(query_count))
    ties_before_Q: NDArray[np.int64] = ties[starts_Q] - tied[starts_Q]
    kept: NDArray[np.bool_] = ~tied | (ties - ties_before_Q[queries] <= k)
    return kept
