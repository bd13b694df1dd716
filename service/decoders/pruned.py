"""MACH's best labels without a look at most labels, exactly; compiled.

A label's score is the sum of its R buckets' scores. It falls short of a, the sum of all repetitions' best buckets, by
what its buckets fall short of these, and reaches a score t only if that is at most d = a - t in all. Give every
repetition an allowance, so that they add up to d: in at least one pair of repetitions, a label that reaches t falls
short by less than the pair's allowances together, so in one of the two by less than its own. That one's lists of the
few buckets that fall short by less are walked. They hold labels and with each of them its bucket in the other
repetition of the pair: labels that fall short too much in both together are passed by, in order of memory. Of others
there are few by chance, for pairs of buckets are B squared; they are scored.

1. Seeds. Labels that have one of the best buckets in both repetitions of a pair are scored; t is the k-th best.
2. Plan (`allowances`). Where scores are so flat that even the cheapest walk costs more than scoring all labels, there
   is none, and the caller is told.
3. Walk.

Where scores are aggregated by the least, a label that reaches t is in buckets from t up in every repetition: walked is
the one that has the fewest labels there.

That few labels are near in several coordinates at once is what multi-index hashing rests on (Norouzi et al., "Fast
Exact Search in Hamming Space with Multi-Index Hashing", TPAMI 2014); the bound on all labels that have not been met is
that of the threshold algorithm (Fagin, Lotem and Naor, "Optimal Aggregation Algorithms for Middleware", PODS 2001).

Letters: R repetitions, B buckets, L labels, N entries of lists, K answers, M best buckets, or labels that are scored
together.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.decoders.allowances import MARGIN, partner, plan, plan_least, score_cut
from service.search.compiled import compiled

Scores = NDArray[np.float32]
Integers = NDArray[Any]
Scalar = Any  # of Python or of numpy: compiled code takes either
# Scores of buckets; buckets of labels; lists: steps, partners, offsets, the step without a label; least or sum; room
# for labels to score.
Tables = tuple[Scores, Integers, Integers, Integers, Integers, int, bool, NDArray[np.int64]]

# Seeds come from so many repetitions and their partners, and there from so many buckets more than there are answers.
SEED_REPETITIONS, SEED_BUCKETS = 8, 12
# Labels that are scored at a time.
SCORED_TOGETHER = 64
# Cost in scoring all labels in order, one bucket of one, in steps along a list.
ORDERED_COST = 0.7

# Keeps a deficit above 0 where all scores are 0.
TINY = 1e-6

NOTHING = np.float32(-np.inf)


@compiled
def search(
    scores_RB: Scores,
    tops_R: Scores,
    buckets_LR: Integers,
    steps_N: Integers,
    partners_N: Integers,
    offsets_RB: Integers,
    far: int,
    least: bool,
    kept_RB: NDArray[np.int32],
    ids_K: NDArray[np.int64],
    best_K: Scores,
) -> bool:
    """Best labels of one query, best first, ties by row.

    Args:
        scores_RB: of the query's buckets, finite.
        tops_R: the largest of each repetition.
        buckets_LR: bucket of each label in each repetition.
        steps_N: see `bundle.inverted`, as the next three.
        partners_N: buckets in the other repetition.
        offsets_RB: where each bucket's entries begin, and the end: (R, B + 1).
        far: the step without a label.
        least: aggregate by the least, not the sum in the order of repetitions.
        kept_RB: room to work in.
        ids_K: takes the labels; K at most L.
        best_K: takes their scores.

    Returns:
        Whether they were found. If not, scoring all labels is cheaper.
    """
    R, last = len(scores_RB), len(best_K) - 1
    rests_R, counts_R, allowances_R = np.empty(R, np.float32), np.zeros(R, np.int64), np.zeros(R)
    labels_M = np.empty(SCORED_TOGETHER, np.int64)
    tables = (scores_RB, buckets_LR, steps_N, partners_N, offsets_RB, far, least, labels_M)
    _fill_rests(tops_R, 0.0, rests_R)
    if _seed(tables, rests_R, kept_RB, counts_R, ids_K, best_K) <= last:
        return False
    if least:
        cost = plan_least(scores_RB, offsets_RB, best_K[last], kept_RB, counts_R, allowances_R)
    else:
        deficit = _fill_rests(tops_R, best_K[last], rests_R)
        cost = plan(scores_RB, offsets_RB, tops_R, deficit, kept_RB, counts_R, allowances_R)
    if cost > buckets_LR.size * ORDERED_COST:
        return False
    _walk(tables, tops_R, rests_R, kept_RB, counts_R, allowances_R, ids_K, best_K)
    return True


@compiled
def _best_buckets(scores_B: Scores, best_B: NDArray[np.int32], most: int) -> int:
    """Put the best buckets of a repetition first, so many of them at most: their number."""
    count = 0
    for bucket in range(len(scores_B)):
        score = scores_B[bucket]
        if count == most and score <= scores_B[best_B[count - 1]]:
            continue
        count = min(count + 1, most)
        place = count - 1
        while place > 0 and scores_B[best_B[place - 1]] < score:
            best_B[place] = best_B[place - 1]
            place -= 1
        best_B[place] = bucket
    return count


@compiled
def _fill_rests(tops_R: Scores, bound: Scalar, rests_R: Scores) -> float:
    """The most that a sum may still gain after each repetition, and the deficit of a label with the score ``bound``.

    Both with what rounding may hide: partial sums of a label that reaches the bound are no larger than all tops and the
    bound together.
    """
    size = TINY + abs(bound)
    for top in tops_R:
        size += 2 * abs(top)
    rest = len(tops_R) * MARGIN * size
    for repetition in range(len(tops_R) - 1, -1, -1):
        rests_R[repetition] = rest
        rest += tops_R[repetition]
    deficit: float = rest - bound
    return deficit


@compiled
def _seed(
    tables: Tables,
    rests_R: Scores,
    kept_RB: NDArray[np.int32],
    counts_R: NDArray[np.int64],
    ids_K: NDArray[np.int64],
    best_K: Scores,
) -> int:
    """Score labels with best buckets in two repetitions; if these are too few, in one: how many are among the best."""
    scores_RB = tables[0]
    R, most = len(scores_RB), SEED_BUCKETS + len(best_K)
    found = 0
    for repetition in range(0, min(R, SEED_REPETITIONS), 2):
        other = partner(repetition, R)
        count = _best_buckets(scores_RB[other], kept_RB[other], most)
        cut = scores_RB[other, kept_RB[other, count - 1]]
        counts_R[repetition] = _best_buckets(scores_RB[repetition], kept_RB[repetition], most)
        for bucket in kept_RB[repetition, : counts_R[repetition]]:
            found = _walk_list(tables, repetition, bucket, cut, rests_R, found, ids_K, best_K)
    for repetition in range(0, min(R, SEED_REPETITIONS), 2):
        for bucket in kept_RB[repetition, : counts_R[repetition]]:
            if found == len(best_K):
                return found
            found = _walk_list(tables, repetition, bucket, NOTHING, rests_R, found, ids_K, best_K)
    return found


@compiled
def _walk(
    tables: Tables,
    tops_R: Scores,
    rests_R: Scores,
    kept_RB: NDArray[np.int32],
    counts_R: NDArray[np.int64],
    allowances_R: NDArray[np.float64],
    ids_K: NDArray[np.int64],
    best_K: Scores,
) -> None:
    """Score the labels that fall short by less than a pair's allowances."""
    scores_RB, least, bound = tables[0], tables[6], best_K[-1]
    for repetition in range(len(scores_RB)):
        allowance, top = allowances_R[repetition], tops_R[repetition]
        if allowance == 0:
            continue
        other = partner(repetition, len(scores_RB))
        for bucket in kept_RB[repetition, : counts_R[repetition]]:
            score = scores_RB[repetition, bucket]
            if least:
                cut = bound
            elif score < score_cut(top, allowance):
                continue
            elif other == repetition:
                cut = NOTHING
            else:
                left = allowance + allowances_R[other] - (np.float64(top) - score)
                cut = score_cut(tops_R[other], left)
            _walk_list(tables, repetition, bucket, cut, rests_R, len(best_K), ids_K, best_K)


@compiled
def _walk_list(
    tables: Tables,
    repetition: int,
    bucket: int,
    cut: Scalar,
    rests_R: Scores,
    found: int,
    ids_K: NDArray[np.int64],
    best_K: Scores,
) -> int:
    """Score a bucket's labels whose other bucket has a score from the cut up: how many are among the best."""
    scores_RB, buckets_LR, steps_N, partners_N, offsets_RB, far, least, labels_M = tables
    scores_B = scores_RB[partner(repetition, len(scores_RB))]
    label, count = 0, 0
    for entry in range(offsets_RB[repetition, bucket], offsets_RB[repetition, bucket + 1]):
        step = steps_N[entry]
        label += step
        if scores_B[partners_N[entry]] >= cut and step != far:
            labels_M[count] = label
            count += 1
            if count == SCORED_TOGETHER:
                found = _take(scores_RB, buckets_LR, least, labels_M, rests_R, found, ids_K, best_K)
                count = 0
    if count:
        found = _take(scores_RB, buckets_LR, least, labels_M[:count], rests_R, found, ids_K, best_K)
    return found


@compiled
def _take(
    scores_RB: Scores,
    buckets_LR: Integers,
    least: bool,
    labels_M: Integers,
    rests_R: Scores,
    found: int,
    ids_K: NDArray[np.int64],
    best_K: Scores,
) -> int:
    """Score labels: how many are among the best."""
    buckets_MR = np.empty((len(labels_M), len(scores_RB)), buckets_LR.dtype)
    for place in range(len(labels_M)):  # they lie far apart: the processor fetches many at a time
        buckets_MR[place] = buckets_LR[labels_M[place]]
    for place in range(len(labels_M)):
        bound = best_K[-1] if found == len(best_K) else NOTHING
        score = _score(scores_RB, buckets_MR[place], least, rests_R, bound)
        if score >= bound:
            found = _insert(ids_K, best_K, found, labels_M[place], score)
    return found


@compiled
def _score(scores_RB: Scores, buckets_R: Integers, least: bool, rests_R: Scores, bound: Scalar) -> Scalar:
    """A label's score, in the order of repetitions; or less than the bound, as soon as it cannot reach that."""
    score = np.float32(np.inf) if least else np.float32(0)
    for repetition in range(len(buckets_R)):
        value = scores_RB[repetition, buckets_R[repetition]]
        if least:
            score = min(score, value)
            if score < bound:
                return NOTHING
        else:
            score += value
            if score + rests_R[repetition] < bound:
                return NOTHING
    return score


@compiled
def _insert(ids_K: NDArray[np.int64], best_K: Scores, found: int, label: int, score: Scalar) -> int:
    """Put a label in its place among the best so far, unless it has it already: their number."""
    place = found
    while place > 0 and (best_K[place - 1] < score or (best_K[place - 1] == score and ids_K[place - 1] > label)):
        place -= 1
    is_there = place > 0 and best_K[place - 1] == score and ids_K[place - 1] == label
    if is_there or place == len(best_K):
        return found
    found = min(found + 1, len(best_K))
    for later in range(found - 1, place, -1):
        best_K[later], ids_K[later] = best_K[later - 1], ids_K[later - 1]
    best_K[place], ids_K[place] = score, label
    return found
