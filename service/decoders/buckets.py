"""Sum or least of every label's R bucket scores, compiled.

Letters: Q queries, R repetitions, B buckets, L labels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.compiled import compiled

Scores = NDArray[np.float32]
Buckets = NDArray[Any]

# Labels whose scores are accumulated at a time: for 32 queries they fit a core's L1 cache.
LABELS_AT_ONCE = 256
# So few queries are cheaper one after the other than in a loop over queries for every bucket.
QUERIES_ONE_BY_ONE = 2


def fold(scores_QRB: Scores, buckets_RL: Buckets, low: int, high: int, *, least: bool) -> Scores:
    """Aggregate the bucket scores of the labels from low to (not including) high, repetition after repetition.

    Args:
        scores_QRB: of each query's buckets, C-contiguous.
        buckets_RL: bucket of each label in each repetition, unsigned. That they are below B is not checked. The whole
            table, since a part of it would be an array of another type, for which the kernels were compiled anew.
        low: first label.
        high: label after the last.
        least: take the least score rather than the sum.

    Returns:
        Scores (Q, high - low), in the order of memory that suits their number.
    """
    Q, L = len(scores_QRB), high - low
    start = np.float32(np.inf if least else 0)
    if Q <= QUERIES_ONE_BY_ONE:
        scores_QL = np.full((Q, L), start)
        _fold_in_turn(scores_QRB, buckets_RL, low, least, scores_QL)
        return scores_QL
    # A bucket's scores for all queries lie side by side: to gather it is to read one run of memory.
    scores_RBQ = np.ascontiguousarray(scores_QRB.transpose(1, 2, 0))
    scores_LQ = np.full((L, Q), start)
    _fold_side_by_side(scores_RBQ, buckets_RL, low, least, scores_LQ)
    return scores_LQ.T


@compiled
def _fold_in_turn(scores_QRB: Scores, buckets_RL: Buckets, first: int, least: bool, out_QL: Scores) -> None:
    Q, L = out_QL.shape
    for query in range(Q):
        for low in range(0, L, LABELS_AT_ONCE):
            high = min(L, low + LABELS_AT_ONCE)
            for repetition in range(len(buckets_RL)):
                scores_B, buckets_L = scores_QRB[query, repetition], buckets_RL[repetition, first:]
                if least:
                    for label in range(low, high):
                        out_QL[query, label] = min(out_QL[query, label], scores_B[buckets_L[label]])
                else:
                    for label in range(low, high):
                        out_QL[query, label] += scores_B[buckets_L[label]]


@compiled
def _fold_side_by_side(scores_RBQ: Scores, buckets_RL: Buckets, first: int, least: bool, out_LQ: Scores) -> None:
    L, Q = out_LQ.shape
    for low in range(0, L, LABELS_AT_ONCE):
        high = min(L, low + LABELS_AT_ONCE)
        for repetition in range(len(buckets_RL)):
            scores_BQ, buckets_L = scores_RBQ[repetition], buckets_RL[repetition, first:]
            for label in range(low, high):
                bucket = buckets_L[label]
                if least:
                    for query in range(Q):
                        out_LQ[label, query] = min(out_LQ[label, query], scores_BQ[bucket, query])
                else:
                    for query in range(Q):
                        out_LQ[label, query] += scores_BQ[bucket, query]
