"""Probabilities from raw scores: for every rank of an answer a map, fitted to rows that the model was not trained on.

A raw score says which label comes first, not how likely it is to be right: it may be a sum of logits, a cosine or a
vote. Its meaning also depends on the rank, because the label at rank 1 is chosen among all and the one at rank 5 among
what is left. So each of the first ranks has a map of its own and deeper ones share one. Two families compete for every
map, and the log loss of held-out rows decides:

* Platt scaling, a logistic curve. Platt, "Probabilistic outputs for support vector machines", 1999, with the smoothed
  targets given there; Newton steps as in Lin, Lin and Weng, Machine Learning 68, 2007.
* Isotonic regression, any rising curve, by pooling adjacent violators. Zadrozny and Elkan, KDD 2002; the pools' centres
  are joined by straight lines as in Oron and Flournoy, Statistics in Biopharmaceutical Research 9, 2017.

Letters: N validation rows, K ranks, M answers (of one rank or of several), G groups of answers.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator
from scipy.special import expit, logit

Floats = NDArray[np.float64]
Probability = Annotated[float, Field(ge=0, le=1)]

# Ranks that maps are fitted to: as many labels as the service gives at most, unless it is told otherwise.
RANKS = 100
# Where each map begins; the last also serves what lies beyond the fitted ranks.
FIRST_RANKS = (1, 2, 3, 4, 5, 6, 11)
FOLDS = 5
# A free curve through fewer rows follows their noise: below this it does not compete.
ISOTONIC_ROWS = 200
# Answers are pooled by neighbouring scores before the regression: so many pools at most, of at least so many answers.
MOST_POOLS = 32
POOL_ANSWERS = 20
NEWTON_STEPS = 50
NEWTON_HALVINGS = 10
# Keeps the Newton system solvable where all scores are equal; too small to move any other fit.
RIDGE = 1e-9
# Keeps the log loss of an answer finite.
LEAST_PROBABILITY = 1e-12


class _Stored(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class PlattMap(_Stored):
    """Probability 1 / (1 + exp(-(slope * score + intercept)))."""

    kind: Literal["platt"] = "platt"
    slope: float = Field(ge=0)
    intercept: float

    def __call__(self, scores: Floats) -> Floats:
        """Probabilities of scores, in their shape."""
        result: Floats = expit(self.slope * scores + self.intercept)
        return result


class IsotonicMap(_Stored):
    """Straight lines through knots, level beyond the first and the last."""

    kind: Literal["isotonic"] = "isotonic"
    scores: tuple[float, ...] = Field(min_length=1, description="strictly rising")
    probabilities: tuple[Probability, ...] = Field(min_length=1, description="never falling")

    @model_validator(mode="after")
    def _check_knots(self) -> Self:
        if len(self.scores) != len(self.probabilities):
            raise ValueError(f"expected as many probabilities as scores, {len(self.scores)}")
        for low, high in pairwise(zip(self.scores, self.probabilities, strict=True)):
            if low[0] >= high[0] or low[1] > high[1]:
                raise ValueError(f"expected knots that rise, found {high} after {low}")
        return self

    def __call__(self, scores: Floats) -> Floats:
        """Probabilities of scores, in their shape."""
        return np.interp(scores, self.scores, self.probabilities)


AnyMap = PlattMap | IsotonicMap


class RankMap(_Stored):
    """The map of the ranks from ``first_rank``, counted from 1, to the next map's."""

    first_rank: int = Field(ge=1)
    map: Annotated[AnyMap, Field(discriminator="kind")]


class Calibration(_Stored):
    """The maps of all ranks, first ranks rising from 1."""

    ranks: tuple[RankMap, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _check_ranks(self) -> Self:
        firsts = [each.first_rank for each in self.ranks]
        if firsts[0] != 1 or firsts != sorted(set(firsts)):
            raise ValueError(f"expected first ranks that rise from 1, found {firsts}")
        return self

    def probabilities(self, scores_NK: NDArray[np.floating]) -> Floats:
        """How likely each answer is to be right.

        Where the next rank's map says more than the rank before, it is held down to that: labels are ordered by raw
        score, and their probabilities must not contradict the order.

        Args:
            scores_NK: raw scores, falling in each row; NaN where there is no answer.

        Returns:
            float64 (N, K) in 0..1, never rising in a row; NaN from a row's first NaN on.
        """
        wide_NK: Floats = scores_NK.astype(np.float64)
        result_NK = np.empty_like(wide_NK)
        starts = [each.first_rank - 1 for each in self.ranks]
        for each, (low, high) in zip(self.ranks, pairwise([*starts, None]), strict=True):
            result_NK[:, low:high] = each.map(wide_NK[:, low:high])
        return np.minimum.accumulate(result_NK, axis=1)


def fit_calibration(scores_NK: NDArray[np.floating], hits_NK: NDArray[np.bool_], seed: int) -> Calibration:
    """Fit a map to each rank, and to each group of deeper ranks.

    Args:
        scores_NK: raw scores of the first K answers to each validation row, best first; NaN where there is none.
        hits_NK: which of them are right.
        seed: of the folds that decide between the two families.
    """
    ends = [first - 1 for first in FIRST_RANKS if first <= scores_NK.shape[1]] + [scores_NK.shape[1]]
    maps = []
    for low, high in pairwise(ends):
        rank_map = fit_map(scores_NK[:, low:high].astype(np.float64), hits_NK[:, low:high], seed)
        maps.append(RankMap(first_rank=low + 1, map=rank_map))
    return Calibration(ranks=tuple(maps))


def fit_map(scores_NK: Floats, hits_NK: NDArray[np.bool_], seed: int) -> AnyMap:
    """The family with the smaller log loss on held-out folds, fitted to all rows; Platt's where rows are few.

    Folds are made of rows, so that answers to the same query are never on both sides.
    """
    if len(scores_NK) < ISOTONIC_ROWS:
        return _fit(fit_platt, scores_NK, hits_NK)
    folds_N = np.random.default_rng(seed).permutation(len(scores_NK)) % FOLDS
    platt, isotonic = (held_out_loss(family, scores_NK, hits_NK, folds_N) for family in (fit_platt, fit_isotonic))
    return _fit(fit_isotonic if isotonic < platt else fit_platt, scores_NK, hits_NK)


def held_out_loss(
    family: Callable[[Floats, NDArray[np.bool_]], AnyMap],
    scores_NK: Floats,
    hits_NK: NDArray[np.bool_],
    folds_N: NDArray[np.int64],
) -> float:
    """Log loss over all answers, each under the map that was fitted without its fold: nats per answer."""
    probabilities_NK = np.full(scores_NK.shape, np.nan)
    for fold in range(FOLDS):
        held_N = folds_N == fold
        fitted = _fit(family, scores_NK[~held_N], hits_NK[~held_N])
        probabilities_NK[held_N] = fitted(scores_NK[held_N])
    answered_NK = ~np.isnan(scores_NK)
    return log_loss(probabilities_NK[answered_NK], hits_NK[answered_NK])


def _fit(
    family: Callable[[Floats, NDArray[np.bool_]], AnyMap], scores_NK: Floats, hits_NK: NDArray[np.bool_]
) -> AnyMap:
    answered_NK = ~np.isnan(scores_NK)
    return family(scores_NK[answered_NK], hits_NK[answered_NK])


def log_loss(probabilities_M: Floats, hits_M: NDArray[np.bool_]) -> float:
    """Mean negative logarithm of the probability given to what happened, in nats; 0 for no answers."""
    given_M = np.where(hits_M, probabilities_M, 1 - probabilities_M)
    return float(-np.log(np.maximum(given_M, LEAST_PROBABILITY)).sum() / max(given_M.size, 1))


def fit_platt(scores_M: Floats, hits_M: NDArray[np.bool_]) -> PlattMap:
    """Logistic regression of hits on scores; level where higher scores are right less often.

    Targets are (hits + 1) / (hits + 2) and 1 / (misses + 2) instead of 1 and 0, so that neither a rank without hits nor
    scores that separate hits from misses send the curve to infinity.
    """
    if not scores_M.size:
        return PlattMap(slope=0, intercept=0)
    hits = int(hits_M.sum())
    targets_M = np.where(hits_M, (hits + 1) / (hits + 2), 1 / (hits_M.size - hits + 2))
    # Sums of logits reach hundreds: without a common scale the two unknowns are of different size.
    centre, spread = scores_M.mean(), scores_M.std()
    standard_M = (scores_M - centre) / spread if spread > 0 else np.zeros_like(scores_M)
    slope, intercept = _logistic_regression(standard_M, targets_M)
    if slope <= 0 or spread == 0:
        return PlattMap(slope=0, intercept=float(logit(targets_M.mean())))
    return PlattMap(slope=float(slope / spread), intercept=float(intercept - slope * centre / spread))


def _logistic_regression(scores_M: Floats, targets_M: Floats) -> Floats:
    """Slope and intercept with the least cross-entropy to targets strictly between 0 and 1, by Newton's method."""
    design_M2 = np.stack([scores_M, np.ones_like(scores_M)], axis=1)
    found_2 = np.array([0.0, logit(targets_M.mean())])
    for _ in range(NEWTON_STEPS):
        fitted_M = expit(design_M2 @ found_2)
        curvatures_M = fitted_M * (1 - fitted_M)
        hessian_22 = design_M2.T @ (design_M2 * curvatures_M[:, None]) / scores_M.size + RIDGE * np.eye(2)
        step_2 = np.linalg.solve(hessian_22, design_M2.T @ (fitted_M - targets_M) / scores_M.size)
        # A whole step may overshoot far from the minimum; near it, none is better than the last digits reached.
        tried = (found_2 - step_2 / 2**halving for halving in range(NEWTON_HALVINGS))
        reached = _cross_entropy(design_M2 @ found_2, targets_M)
        better_2 = next((each_2 for each_2 in tried if _cross_entropy(design_M2 @ each_2, targets_M) < reached), None)
        if better_2 is None:
            break
        found_2 = better_2
    return found_2


def _cross_entropy(logits_M: Floats, targets_M: Floats) -> float:
    return float((np.logaddexp(0, logits_M) - targets_M * logits_M).mean())


def fit_isotonic(scores_M: Floats, hits_M: NDArray[np.bool_]) -> IsotonicMap:
    """The rising curve nearest to the hit rates of answers with neighbouring scores.

    Every group of answers counts one answer more, of the average hit rate: no probability is 0 or 1, and the log loss
    of what was never seen stays finite.
    """
    if not scores_M.size:
        return IsotonicMap(scores=(0,), probabilities=(0.5,))
    group_M = _neighbours(scores_M)
    counts_G = np.bincount(group_M)
    average = (hits_M.sum() + 1) / (hits_M.size + 2)
    rates_G = (np.bincount(group_M, hits_M) + average) / (counts_G + 1)
    fitted_G = pool_adjacent_violators(rates_G, counts_G + 1)
    levels, level_G = np.unique(fitted_G, return_inverse=True)
    centres = np.bincount(level_G, np.bincount(group_M, scores_M)) / np.bincount(level_G, counts_G)
    return IsotonicMap(scores=tuple(centres.tolist()), probabilities=tuple(levels.tolist()))


def _neighbours(scores_M: Floats) -> NDArray[np.int64]:
    """Cut the answers, by rising score, into groups of about equal size; equal scores stay together: int64 (M,)."""
    _, value_M, counts = np.unique(scores_M, return_inverse=True, return_counts=True)
    groups = min(MOST_POOLS, max(1, scores_M.size // POOL_ANSWERS))
    group = (np.cumsum(counts) - counts) * groups // scores_M.size
    _, dense = np.unique(group, return_inverse=True)  # a long run of equal scores may leave groups empty
    result: NDArray[np.int64] = dense[value_M]
    return result


def pool_adjacent_violators(values_G: NDArray[np.floating], weights_G: NDArray[np.number]) -> Floats:
    """The never falling sequence with the least weighted squared distance to ``values_G``.

    Ayer et al., Annals of Mathematical Statistics 26, 1955: neighbours in the wrong order are replaced by their mean
    until none are left.

    Args:
        values_G: what the sequence should be like.
        weights_G: above 0.
    """
    pools: list[tuple[float, float, int]] = []
    for value, weight in zip(values_G.tolist(), weights_G.tolist(), strict=True):
        size = 1
        while pools and pools[-1][0] >= value:
            other, other_weight, other_size = pools.pop()
            value = (other * other_weight + value * weight) / (other_weight + weight)
            weight, size = weight + other_weight, size + other_size
        pools.append((value, weight, size))
    return np.repeat([value for value, _, _ in pools], [size for _, _, size in pools])
