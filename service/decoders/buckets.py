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

# So few queries are cheaper one after the other than in a loop over queries for every bucket.
QUERIES_ONE_BY_ONE = 2


def fold(scores_QRB: Scores, buckets_LR: Buckets, low: int, high: int, *, least: bool) -> Scores:
    """Aggregate the bucket scores of the labels from low to (not including) high, repetition after repetition.

    Args:
        scores_QRB: of each query's buckets, C-contiguous.
        buckets_LR: bucket of each label in each repetition, unsigned. That they are below B is not checked.
        low: first label.
        high: label after the last.
        least: take the least score rather than the sum.

    Returns:
        Scores (Q, high - low), in the order of memory that suits their number.
    """
    Q, L = len(scores_QRB), high - low
    if Q <= QUERIES_ONE_BY_ONE:
        scores_QL = np.empty((Q, L), dtype=np.float32)
        _fold_in_turn(scores_QRB, buckets_LR[low:high], least, scores_QL)
        return scores_QL
    # A bucket's scores for all queries lie side by side: to gather it is to read one run of memory.
    scores_RBQ = np.ascontiguousarray(scores_QRB.transpose(1, 2, 0))
    scores_LQ = np.full((L, Q), np.float32(np.inf if least else 0))
    _fold_side_by_side(scores_RBQ, buckets_LR[low:high], least, scores_LQ)
    return scores_LQ.T


@compiled
def _fold_in_turn(scores_QRB: Scores, buckets_LR: Buckets, least: bool, out_QL: Scores) -> None:
    Q, L = out_QL.shape
    for query in range(Q):
        scores_RB = scores_QRB[query]
        for label in range(L):
            score = np.float32(np.inf) if least else np.float32(0)
            for repetition in range(buckets_LR.shape[1]):
                value = scores_RB[repetition, buckets_LR[label, repetition]]
                score = min(score, value) if least else score + value
            out_QL[query, label] = score


@compiled
def _fold_side_by_side(scores_RBQ: Scores, buckets_LR: Buckets, least: bool, out_LQ: Scores) -> None:
    L, Q = out_LQ.shape
    for label in range(L):
        for repetition in range(buckets_LR.shape[1]):
            bucket = buckets_LR[label, repetition]
            if least:
                for query in range(Q):
                    out_LQ[label, query] = min(out_LQ[label, query], scores_RBQ[repetition, bucket, query])
            else:
                for query in range(Q):
                    out_LQ[label, query] += scores_RBQ[repetition, bucket, query]
