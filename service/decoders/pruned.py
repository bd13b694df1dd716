"""MACH's best labels without a look at most labels, exactly; compiled.

A label's score is the sum of its R buckets' scores. It falls short of a, the sum of all repetitions' best buckets, by
what its buckets fall short of these, and beats a score t only if that is less than d = a - t in all. Give every
repetition an allowance, none larger than c, and list the labels of those of its buckets that fall short by less. If the
allowances add up to d, a label that beats t is in at least one list: else it would fall short by d. If they add up to
d + (m - 1) c, it is in at least m. So it is enough to walk the lists and to score the few labels that are met m times.

1. Seeds. Labels that are met twice among the best buckets of a few repetitions are scored; t is the k-th best.
2. Plan. Which allowances, in units of d, make the shortest lists is a knapsack, solved for every m up to
   `MOST_MEETINGS`. Where scores are so flat that even the cheapest walk costs more than scoring all labels, there is
   none, and the caller is told.
3. Walk.

Where scores are aggregated by the least, a label that beats t is in buckets above t in every repetition: walked are
those of the few repetitions that have the fewest labels there.

The idea of a bound on all labels that have not been met is that of the threshold algorithm (Fagin, Lotem and Naor,
"Optimal Aggregation Algorithms for Middleware", PODS 2001), which goes down all lists alike and scores a label when it
is first met.

Letters: R repetitions, B buckets, L labels, K answers, M best buckets, U units.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.compiled import compiled

Scores = NDArray[np.float32]
Integers = NDArray[Any]
Scalar = Any  # of Python or of numpy: compiled code takes either

# d has so many units for each repetition; the largest allowance of one, in units. Measured at R = 32, B = 10,000 and
# L = 670,091 on the scores of a trained model: finer units and larger allowances cost more to plan than they save.
UNITS_PER_REPETITION, LARGEST = 1.5, 4
MOST_MEETINGS = 4
# Costs, in steps along a list: a label's score, and in scoring all labels in order one bucket of one.
SCORE_COST, ORDERED_COST = 20.0, 0.1
SEED_REPETITIONS, SEED_BUCKETS = 8, 16
# A walk's stamps are its base plus the meetings of a label: the next walk's base is one stride further. A byte for each
# label, cleared once in many searches, so that more of them stay in the processor's caches.
STRIDE = MOST_MEETINGS
MOST_STAMP = 255
# More than R roundings of sums as large as those of a search can amount to, relative to them.
ROUNDING = 2.0**-22

# Keeps a deficit above 0 where all scores are 0.
TINY = 1e-6

NOTHING = np.float32(-np.inf)


@compiled
def search(
    scores_RB: Scores,
    buckets_LR: Integers,
    labels_RL: Integers,
    offsets_RB: Integers,
    least: bool,
    stamps_L: NDArray[np.uint8],
    base: Scalar,
    kept_RB: NDArray[np.int32],
    ids_K: NDArray[np.int64],
    best_K: Scores,
) -> bool:
    """Best labels of one query, best first, ties by row.

    Args:
        scores_RB: of the query's buckets, finite.
        buckets_LR: bucket of each label in each repetition.
        labels_RL: labels by bucket, then row.
        offsets_RB: where each bucket's labels begin, and the end: (R, B + 1).
        least: aggregate by the least, not the sum in the order of repetitions.
        stamps_L: nowhere above ``base``; afterwards nowhere above ``base + 2 * STRIDE``.
        base: see there; at most ``MOST_STAMP - 2 * STRIDE``.
        kept_RB: room to work in.
        ids_K: takes the labels; K at most L.
        best_K: takes their scores.

    Returns:
        Whether they were found. If not, scoring all labels is cheaper.
    """
    R, K = len(scores_RB), len(best_K)
    tops_R, rests_R = np.empty(R, np.float32), np.empty(R, np.float32)
    counts_R, cuts_R = np.zeros(R, np.int64), np.full(R, NOTHING)
    for repetition in range(R):
        tops_R[repetition] = _largest(scores_RB[repetition])
    for repetition in range(min(R, SEED_REPETITIONS)):
        counts_R[repetition] = _best_buckets(scores_RB[repetition], kept_RB[repetition], SEED_BUCKETS)
    tables = (scores_RB, buckets_LR, labels_RL, offsets_RB, least)
    lists = (kept_RB, counts_R, cuts_R)
    _fill_rests(tops_R, 0.0, rests_R)
    found = _walk(tables, lists, 2, rests_R, NOTHING, stamps_L, base, ids_K, best_K)
    found = _fill_up(tables, lists, rests_R, stamps_L, base, found, ids_K, best_K)
    if found < K:
        return False
    bound = best_K[K - 1]
    deficit = _fill_rests(tops_R, bound, rests_R)
    if least:
        meetings = _plan_least(scores_RB, offsets_RB, bound, kept_RB, counts_R, cuts_R)
    else:
        meetings = _plan(scores_RB, offsets_RB, tops_R, deficit, kept_RB, counts_R, cuts_R)
    if meetings == 0:
        return False
    _walk(tables, lists, meetings, rests_R, bound, stamps_L, base + STRIDE, ids_K, best_K)
    return True


@compiled
def _largest(scores_B: Scores) -> Scalar:
    largest = scores_B[0]
    for score in scores_B:
        if score > largest:
            largest = score
    return largest


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
    rest = len(tops_R) * ROUNDING * size
    for repetition in range(len(tops_R) - 1, -1, -1):
        rests_R[repetition] = rest
        rest += tops_R[repetition]
    deficit: float = rest - bound
    return deficit


@compiled
def _walk(
    tables: tuple[Scores, Integers, Integers, Integers, bool],
    lists: tuple[NDArray[np.int32], NDArray[np.int64], Scores],
    meetings: int,
    rests_R: Scores,
    bound: Scalar,
    stamps_L: NDArray[np.uint8],
    base: Scalar,
    ids_K: NDArray[np.int64],
    best_K: Scores,
) -> int:
    """Score the labels that are met so often in the kept buckets above the cuts: how many are among the best."""
    scores_RB, buckets_LR, labels_RL, offsets_RB, least = tables
    kept_RB, counts_R, cuts_R = lists
    found, last = 0, len(best_K) - 1
    for repetition in range(len(scores_RB)):
        for place in range(counts_R[repetition]):
            bucket = kept_RB[repetition, place]
            if scores_RB[repetition, bucket] < cuts_R[repetition]:
                continue
            for entry in range(offsets_RB[repetition, bucket], offsets_RB[repetition, bucket + 1]):
                label = labels_RL[repetition, entry]
                stamp = max(base, stamps_L[label]) + 1
                if stamp > base + meetings:
                    continue
                stamps_L[label] = stamp
                if stamp < base + meetings:
                    continue
                score = _score(scores_RB, buckets_LR[label], least, rests_R, bound)
                if score >= bound:
                    found = _insert(ids_K, best_K, found, label, score)
                    if found > last and best_K[last] > bound:
                        bound = best_K[last]
    return found


@compiled
def _fill_up(
    tables: tuple[Scores, Integers, Integers, Integers, bool],
    lists: tuple[NDArray[np.int32], NDArray[np.int64], Scores],
    rests_R: Scores,
    stamps_L: NDArray[np.uint8],
    base: Scalar,
    found: int,
    ids_K: NDArray[np.int64],
    best_K: Scores,
) -> int:
    """Where too few labels were met twice, take such as were met once."""
    scores_RB, buckets_LR, labels_RL, offsets_RB, least = tables
    kept_RB, counts_R, _ = lists
    for repetition in range(len(scores_RB)):
        for place in range(counts_R[repetition]):
            bucket = kept_RB[repetition, place]
            for entry in range(offsets_RB[repetition, bucket], offsets_RB[repetition, bucket + 1]):
                label = labels_RL[repetition, entry]
                if found == len(best_K):
                    return found
                if stamps_L[label] == base + 1:
                    stamps_L[label] = base + 2
                    score = _score(scores_RB, buckets_LR[label], least, rests_R, NOTHING)
                    found = _insert(ids_K, best_K, found, label, score)
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
    """Put a label in its place among the best so far: their number."""
    last = len(best_K) - 1
    if found > last and (score < best_K[last] or (score == best_K[last] and label > ids_K[last])):
        return found
    found = min(found + 1, last + 1)
    place = found - 1
    while place > 0 and (best_K[place - 1] < score or (best_K[place - 1] == score and ids_K[place - 1] > label)):
        best_K[place], ids_K[place] = best_K[place - 1], ids_K[place - 1]
        place -= 1
    best_K[place], ids_K[place] = score, label
    return found


@compiled
def _plan(
    scores_RB: Scores,
    offsets_RB: Integers,
    tops_R: Scores,
    deficit: float,
    kept_RB: NDArray[np.int32],
    counts_R: NDArray[np.int64],
    cuts_R: Scores,
) -> int:
    """Choose allowances: buckets that are kept, their cuts, and how often a label must be met; 0: not worth it."""
    R, L = len(scores_RB), offsets_RB[0, -1]
    total = max(2 * LARGEST, int(UNITS_PER_REPETITION * R))
    unit = deficit / total
    lengths_RU = np.zeros((R, LARGEST), np.int64)
    for repetition in range(R):
        kept_B, top = kept_RB[repetition], tops_R[repetition]
        counts_R[repetition] = _keep(scores_RB[repetition], _cut(top, LARGEST * unit), kept_B)
        for bucket in kept_B[: counts_R[repetition]]:
            units = min(int((top - scores_RB[repetition, bucket]) / unit), LARGEST - 1)
            lengths_RU[repetition, units] += offsets_RB[repetition, bucket + 1] - offsets_RB[repetition, bucket]
    shortest_U = np.full(total + (MOST_MEETINGS - 1) * LARGEST + 1, np.int64(1) << 62)
    choices_RU = np.zeros((R, len(shortest_U)), np.int64)
    shortest_U[0] = 0
    for repetition in range(R):
        _take_in(lengths_RU[repetition], shortest_U, choices_RU[repetition])
    meetings, cheapest = 0, L * R * ORDERED_COST
    for wanted in range(1, MOST_MEETINGS + 1):
        cost = _cost(shortest_U[total + (wanted - 1) * LARGEST], wanted, L)
        if cost < cheapest:
            meetings, cheapest = wanted, cost
    left = total + (meetings - 1) * LARGEST
    for repetition in range(R - 1, -1, -1):
        units = choices_RU[repetition, left] if meetings else 0
        left -= units
        cuts_R[repetition] = _cut(tops_R[repetition], units * unit)
        if not units:
            counts_R[repetition] = 0
    return meetings


@compiled
def _cost(steps: Scalar, meetings: int, labels: int) -> float:
    """Of a walk: its steps, and the scores of labels that lie in so many lists by chance; the best are few."""
    scored = float(labels)
    for meeting in range(1, meetings + 1):
        scored *= steps / labels / meeting
    cost: float = steps + SCORE_COST * scored
    return cost


@compiled
def _cut(top: Scalar, allowance: Scalar) -> Scalar:
    """The least score that an allowance reaches, and a little less, so that rounding leaves no bucket out."""
    return np.float32(top - allowance * (1 + ROUNDING) - ROUNDING * abs(top))


@compiled
def _keep(scores_B: Scores, cut: Scalar, kept_B: NDArray[np.int32]) -> int:
    """Put first the buckets of a repetition from the cut up: their number."""
    count = 0
    for bucket in range(len(scores_B)):
        if scores_B[bucket] >= cut:
            kept_B[count] = bucket
            count += 1
    return count


@compiled
def _take_in(lengths_U: Integers, shortest_U: Integers, choices_U: Integers) -> None:
    """One more repetition of the knapsack: the shortest lists for every sum of allowances, and its share of it."""
    for total in range(len(shortest_U) - 1, 0, -1):
        steps = 0
        for units in range(1, min(LARGEST, total) + 1):
            steps += lengths_U[units - 1]
            if shortest_U[total - units] + steps < shortest_U[total]:
                shortest_U[total] = shortest_U[total - units] + steps
                choices_U[total] = units


@compiled
def _plan_least(
    scores_RB: Scores,
    offsets_RB: Integers,
    bound: Scalar,
    kept_RB: NDArray[np.int32],
    counts_R: NDArray[np.int64],
    cuts_R: Scores,
) -> int:
    """The same for the least score: buckets from the bound up of the repetitions that have the fewest labels there."""
    R, L = len(scores_RB), offsets_RB[0, -1]
    steps_R = np.zeros(R, np.int64)
    for repetition in range(R):
        counts_R[repetition] = _keep(scores_RB[repetition], bound, kept_RB[repetition])
        for bucket in kept_RB[repetition, : counts_R[repetition]]:
            steps_R[repetition] += offsets_RB[repetition, bucket + 1] - offsets_RB[repetition, bucket]
    cuts_R[:] = bound
    order_R = np.argsort(steps_R)
    meetings, cheapest, steps, scored = 0, L * R * ORDERED_COST, 0.0, float(L)
    for wanted in range(1, min(R, MOST_MEETINGS) + 1):
        steps += steps_R[order_R[wanted - 1]]
        scored *= steps_R[order_R[wanted - 1]] / L
        if steps + SCORE_COST * scored < cheapest:
            meetings, cheapest = wanted, steps + SCORE_COST * scored
    counts_R[order_R[meetings:]] = 0
    return meetings
