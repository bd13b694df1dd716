"""Sum or least of every label's R bucket scores, compiled.

Letters: Q queries, R repetitions, B buckets, L labels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.search.compiled import compiled

Scores = NDArray[np.float32]
Buckets = NDArray[Any]


def fold(scores_QRB: Scores, buckets_LR: Buckets, low: int, high: int, *, least: bool) -> Scores:
    """Aggregate the bucket scores of the labels from low to (not including) high, repetition after repetition.

    Queries take turns: side by side, one look at a label's buckets would do for all, but their scores would not fit
    into a core's caches. That was never faster, with 4 to 32 queries and 4,271 to 670,091 labels.

    Args:
        scores_QRB: of each query's buckets.
        buckets_LR: bucket of each label in each repetition, unsigned. That they are below B is not checked.
        low: first label.
        high: label after the last.
        least: take the least score rather than the sum.

    Returns:
        Scores (Q, high - low).
    """
    scores_QL = np.empty((len(scores_QRB), high - low), dtype=np.float32)
    _fold(scores_QRB, buckets_LR[low:high], least, scores_QL)
    return scores_QL


def fold_rows(scores_RB: Scores, buckets_LR: Buckets, rows_N: NDArray[np.int64], *, least: bool) -> Scores:
    """The same of some labels for one query, to the bit.

    Returns:
        Scores (N,).
    """
    scores_N = np.empty(len(rows_N), dtype=np.float32)
    _fold_rows(scores_RB, buckets_LR, rows_N, least, scores_N)
    return scores_N


@compiled
def _fold_rows(scores_RB: Scores, buckets_LR: Buckets, rows_N: NDArray[np.int64], least: bool, out_N: Scores) -> None:
    for place in range(len(rows_N)):
        row = rows_N[place]
        score = np.float32(np.inf) if least else np.float32(0)
        for repetition in range(buckets_LR.shape[1]):
            value = scores_RB[repetition, buckets_LR[row, repetition]]
            score = min(score, value) if least else score + value
        out_N[place] = score


@compiled
def _fold(scores_QRB: Scores, buckets_LR: Buckets, least: bool, out_QL: Scores) -> None:
    Q, L = out_QL.shape
    for query in range(Q):
        scores_RB = scores_QRB[query]
        for label in range(L):
            score = np.float32(np.inf) if least else np.float32(0)
            for repetition in range(buckets_LR.shape[1]):
                value = scores_RB[repetition, buckets_LR[label, repetition]]
                score = min(score, value) if least else score + value
            out_QL[query, label] = score
