"""How far MACH's search goes down in each repetition; compiled. See `pruned`.

Allowances are counted in units. Which of them make the cheapest walk is a knapsack: in every repetition, a walk takes
more steps with every unit.

Letters: R repetitions, B buckets, U units of one repetition, T units of all.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.bundle import inverted
from service.search.compiled import compiled

Scores = NDArray[np.float32]
Integers = NDArray[Any]
Scalar = Any  # of Python or of numpy: compiled code takes either

# A deficit has so many units for each repetition; the largest allowance of one, in units.
UNITS_PER_REPETITION, LARGEST = 1.5, 4
# Costs, in steps along a list: the way to a list, a label's score, and to plan with a bucket.
LIST_COST, SCORE_COST, KEPT_COST = 300.0, 500.0, 5.0
# More than R roundings of sums as large as those of a search can amount to, relative to them.
MARGIN = 2.0**-22


partner = compiled(inverted.partner)


@compiled
def entries(offsets_RB: Integers, repetition: int, bucket: int) -> int:
    """How long a bucket's list is."""
    count: int = offsets_RB[repetition, bucket + 1] - offsets_RB[repetition, bucket]
    return count


@compiled
def score_cut(top: Scalar, allowance: Scalar) -> Scalar:
    """The least score that an allowance reaches, and a little less, so that rounding leaves no bucket out."""
    return np.float32(top - allowance * (1 + MARGIN) - MARGIN * abs(top))


@compiled
def plan(
    scores_RB: Scores,
    offsets_RB: Integers,
    tops_R: Scores,
    deficit: float,
    kept_RB: NDArray[np.int32],
    counts_R: NDArray[np.int64],
    allowances_R: NDArray[np.float64],
) -> float:
    """Choose the allowances whose walk is the cheapest.

    Args:
        scores_RB: of the query's buckets.
        offsets_RB: where each bucket's labels begin in the lists, and the end.
        tops_R: the largest score of each repetition.
        deficit: what allowances are to add up to.
        kept_RB: takes the buckets that the largest possible allowance reaches.
        counts_R: takes how many these are.
        allowances_R: takes the allowances.

    Returns:
        What the walk costs, and the plan itself, in steps.
    """
    R = len(scores_RB)
    total = max(LARGEST, int(UNITS_PER_REPETITION * R))
    unit = deficit / total
    cheapest_T, choices_RT = np.full(total + 1, np.inf), np.zeros((R, total + 1), np.int64)
    cheapest_T[0] = 0
    costs_RU = np.zeros((R, LARGEST))
    for repetition in range(R):
        top, kept_B = tops_R[repetition], kept_RB[repetition]
        counts_R[repetition] = keep(scores_RB[repetition], score_cut(top, LARGEST * unit), kept_B)
        for bucket in kept_B[: counts_R[repetition]]:
            units = min(int((top - scores_RB[repetition, bucket]) / unit), LARGEST - 1)
            costs_RU[repetition, units] += LIST_COST + entries(offsets_RB, repetition, bucket)
        costs_RU[repetition] = np.cumsum(costs_RU[repetition])
        _take_in(costs_RU[repetition], cheapest_T, choices_RT[repetition])
    left = total
    for repetition in range(R - 1, -1, -1):
        units = choices_RT[repetition, left]
        left -= units
        allowances_R[repetition] = units * unit
    met = _met_twice(scores_RB, offsets_RB, tops_R, kept_RB, counts_R, allowances_R)
    cost: float = cheapest_T[total] + KEPT_COST * counts_R.sum() + SCORE_COST * met
    return cost


@compiled
def _met_twice(
    scores_RB: Scores,
    offsets_RB: Integers,
    tops_R: Scores,
    kept_RB: NDArray[np.int32],
    counts_R: NDArray[np.int64],
    allowances_R: NDArray[np.float64],
) -> float:
    """About how many labels have good buckets in both repetitions of a pair by chance; those that are best are few."""
    R, B = scores_RB.shape
    # Labels in walked lists, and buckets that are as good as half of the pair's allowances.
    met_R, good_R = np.zeros(R), np.zeros(R)
    for repetition in range(R):
        other, scores_B = partner(repetition, R), scores_RB[repetition]
        both = allowances_R[repetition] + allowances_R[other]
        for bucket in kept_RB[repetition, : counts_R[repetition]]:
            if scores_B[bucket] >= score_cut(tops_R[repetition], allowances_R[repetition]):
                met_R[repetition] += entries(offsets_RB, repetition, bucket)
            good_R[repetition] += scores_B[bucket] >= score_cut(tops_R[repetition], both / 2)
    met = 0.0
    for repetition in range(R):
        met += met_R[repetition] * good_R[partner(repetition, R)] / B
    return met


@compiled
def keep(scores_B: Scores, cut: Scalar, kept_B: NDArray[np.int32]) -> int:
    """Put first the buckets of a repetition from the cut up: their number."""
    count = 0
    for bucket in range(len(scores_B)):
        kept_B[count] = bucket  # overwritten by the next where it is not kept: no branch to foresee
        count += scores_B[bucket] >= cut
    return count


@compiled
def _take_in(costs_U: NDArray[np.float64], cheapest_T: NDArray[np.float64], choices_T: NDArray[np.int64]) -> None:
    """One more repetition of the knapsack: the cheapest walks for every sum of allowances, and its share of it."""
    for total in range(len(cheapest_T) - 1, 0, -1):
        for units in range(1, min(LARGEST, total) + 1):
            cost = cheapest_T[total - units] + costs_U[units - 1]
            if cost < cheapest_T[total]:
                cheapest_T[total] = cost
                choices_T[total] = units


@compiled
def plan_least(
    scores_RB: Scores,
    offsets_RB: Integers,
    bound: Scalar,
    kept_RB: NDArray[np.int32],
    counts_R: NDArray[np.int64],
    allowances_R: NDArray[np.float64],
) -> float:
    """The same for the least score: an allowance for the repetition with the fewest labels from the bound up."""
    R, B = scores_RB.shape
    for repetition in range(R):
        counts_R[repetition] = keep(scores_RB[repetition], bound, kept_RB[repetition])
    best, cheapest = 0, np.inf
    for repetition in range(R):
        cost, dearer = counts_R[repetition] * LIST_COST, SCORE_COST * counts_R[partner(repetition, R)] / B
        for bucket in kept_RB[repetition, : counts_R[repetition]]:
            cost += (1 + dearer) * entries(offsets_RB, repetition, bucket)
        if cost < cheapest:
            best, cheapest = repetition, cost
    allowances_R[:] = 0
    allowances_R[best] = 1
    return cheapest
