"""Sum or least of every label's R bucket scores, compiled.

A kernel is one call that runs without the interpreter's lock. In numpy the same work is hundreds of short calls, and
after each of them the model's thread has to win the lock back from the event loop: under overload that took longer than
the work itself.

Letters: Q queries, R repetitions, B buckets, L labels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float32]
Buckets = NDArray[Any]
Function = TypeVar("Function", bound=Callable[..., None])

# Labels whose scores are accumulated at a time: for 32 queries they fit a core's L1 cache.
LABELS_AT_ONCE = 256
# So few queries are cheaper one after the other than in a loop over queries for every bucket.
QUERIES_ONE_BY_ONE = 2


def fold(scores_QRB: Scores, buckets_RL: Buckets, *, least: bool) -> Scores:
    """Aggregate the bucket scores of every label, repetition after repetition.

    Args:
        scores_QRB: of each query's buckets, C-contiguous.
        buckets_RL: bucket of each label in each repetition, unsigned. That they are below B is not checked.
        least: take the least score rather than the sum.

    Returns:
        Scores (Q, L), in the order of memory that suits their number.
    """
    Q, L = len(scores_QRB), buckets_RL.shape[1]
    start = np.float32(np.inf if least else 0)
    if Q <= QUERIES_ONE_BY_ONE:
        scores_QL = np.full((Q, L), start)
        _fold_in_turn(scores_QRB, buckets_RL, least, scores_QL)
        return scores_QL
    # A bucket's scores for all queries lie side by side: to gather it is to read one run of memory.
    scores_RBQ = np.ascontiguousarray(scores_QRB.transpose(1, 2, 0))
    scores_LQ = np.full((L, Q), start)
    _fold_side_by_side(scores_RBQ, buckets_RL, least, scores_LQ)
    return scores_LQ.T


def _compiled(kernel: Function) -> Function:
    """Compile at the first call for each type of arguments, and keep the code for the next process."""
    try:
        return cast(Function, numba.njit(nogil=True, error_model="numpy", cache=True)(kernel))
    except RuntimeError:  # no folder for it can be written: not this one, nor the user's, nor NUMBA_CACHE_DIR
        return cast(Function, numba.njit(nogil=True, error_model="numpy")(kernel))


@_compiled
def _fold_in_turn(scores_QRB: Scores, buckets_RL: Buckets, least: bool, out_QL: Scores) -> None:
    R, L = buckets_RL.shape
    for query in range(len(scores_QRB)):
        for low in range(0, L, LABELS_AT_ONCE):
            high = min(L, low + LABELS_AT_ONCE)
            for repetition in range(R):
                scores_B, buckets_L = scores_QRB[query, repetition], buckets_RL[repetition]
                if least:
                    for label in range(low, high):
                        out_QL[query, label] = min(out_QL[query, label], scores_B[buckets_L[label]])
                else:
                    for label in range(low, high):
                        out_QL[query, label] += scores_B[buckets_L[label]]


@_compiled
def _fold_side_by_side(scores_RBQ: Scores, buckets_RL: Buckets, least: bool, out_LQ: Scores) -> None:
    R, L = buckets_RL.shape
    Q = scores_RBQ.shape[2]
    for low in range(0, L, LABELS_AT_ONCE):
        high = min(L, low + LABELS_AT_ONCE)
        for repetition in range(R):
            scores_BQ, buckets_L = scores_RBQ[repetition], buckets_RL[repetition]
            for label in range(low, high):
                bucket = buckets_L[label]
                if least:
                    for query in range(Q):
                        out_LQ[label, query] = min(out_LQ[label, query], scores_BQ[bucket, query])
                else:
                    for query in range(Q):
                        out_LQ[label, query] += scores_BQ[bucket, query]
