"""From a decoder's answers to what is served: probabilities for raw scores, and another order where that is asked for.

Both happen once for a whole batch. Training fits the maps and knows how well they hold: see ``training/calibration.py``
for what they are; a test holds this code to that.

Letters: Q queries, K answers, C candidates, L labels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from service.bundle import Bundle, layout
from service.bundle.manifest import CalibrationSection, IsotonicMap, PlattMap
from service.search.topk import TopK

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Ranked:
    """Answers as they are served.

    Attributes:
        top: label rows in the order of the answer, and the scores that go with them.
        keys_QK: what the order is by: the decoder's scores, or what re-ranking made of them.
    """

    top: TopK
    keys_QK: NDArray[np.floating]


class Scoring(Protocol):
    """What becomes of a decoder's answers before they are served; may be called from several threads."""

    @property
    def head(self) -> int:
        """Of so many labels, and of as many as are wanted for one, none may be missing; beyond them, some may be."""
        ...

    def wanted(self, k: int) -> int:
        """How many labels the decoder must be asked for, so that k can be served."""
        ...

    def serve(self, found: TopK, k: int) -> Ranked:
        """The best min(k, L) of what the decoder found."""
        ...


class RawScoring:
    """Serves a decoder's answers as they are."""

    head = 0

    def wanted(self, k: int) -> int:
        """See ``Scoring``."""
        return k

    def serve(self, found: TopK, k: int) -> Ranked:
        """See ``Scoring``."""
        return Ranked(found, found.scores_QK)


class CalibratedScoring:
    """Serves probabilities in the order of the raw scores."""

    def __init__(self, section: CalibrationSection) -> None:
        self._starts = [rank.first_rank - 1 for rank in section.ranks]
        self._maps = [_function(rank.map) for rank in section.ranks]
        # The last map serves all ranks from its own on, and holds each down to the one before.
        self.head = self._starts[-1]

    def wanted(self, k: int) -> int:
        """See ``Scoring``."""
        return k

    def serve(self, found: TopK, k: int) -> Ranked:
        """See ``Scoring``."""
        return Ranked(TopK(found.ids_QK, self.probabilities(found.scores_QK)), found.scores_QK)

    def probabilities(self, scores_QK: NDArray[np.float32]) -> NDArray[np.float32]:
        """How likely each label is to be relevant, by its rank and raw score; never rising in a row."""
        wide_QK = scores_QK.astype(np.float64)
        result_QK = np.empty_like(wide_QK)
        for function, (low, high) in zip(self._maps, pairwise([*self._starts, None]), strict=True):
            result_QK[:, low:high] = function(wide_QK[:, low:high])
        return np.minimum.accumulate(result_QK, axis=1).astype(np.float32)


class PropensityScoring:
    """Serves probabilities, the best candidates ordered by probability times inverse propensity to a power.

    How many candidates there are does not depend on k, so an answer is the beginning of any longer one: what else is in
    a batch changes nothing.
    """

    def __init__(
        self, calibrated: CalibratedScoring, inverse_propensities_L: NDArray[np.float32], weight: float, candidates: int
    ) -> None:
        self._calibrated = calibrated
        self._inverse_propensities_L = inverse_propensities_L
        # Of labels that were added since: nobody has annotated any.
        self._rarest = float(inverse_propensities_L.max())
        self._weight = weight
        self._candidates = candidates
        self.head = calibrated.head

    def wanted(self, k: int) -> int:
        """See ``Scoring``."""
        return max(k, self._candidates)

    def serve(self, found: TopK, k: int) -> Ranked:
        """See ``Scoring``; equal keys stay in the order of raw scores."""
        top = self._calibrated.serve(found, k).top
        keys_QC = top.scores_QK * self._inverse_propensities(top.ids_QK) ** self._weight
        # What lies beyond the candidates keeps its place after them.
        order_QC = np.argsort(-keys_QC[:, : self._candidates], axis=1, kind="stable")
        beyond = np.arange(order_QC.shape[1], keys_QC.shape[1])
        order_QK = np.concatenate([order_QC, np.tile(beyond, (len(order_QC), 1))], axis=1)[:, :k]
        ids_QK = np.take_along_axis(top.ids_QK, order_QK, axis=1)
        scores_QK = np.take_along_axis(top.scores_QK, order_QK, axis=1)
        return Ranked(TopK(ids_QK, scores_QK), np.take_along_axis(keys_QC, order_QK, axis=1))

    def _inverse_propensities(self, ids_QC: NDArray[np.int64]) -> Floats:
        known_QC = ids_QC < len(self._inverse_propensities_L)
        inverse_QC = self._inverse_propensities_L[np.where(known_QC, ids_QC, 0)].astype(np.float64)
        return np.where(known_QC, inverse_QC, self._rarest)


def scoring_of(bundle: Bundle) -> Scoring:
    """What the bundle's manifest asks for."""
    manifest = bundle.manifest
    if manifest.calibration is None:
        return RawScoring()
    calibrated = CalibratedScoring(manifest.calibration)
    if manifest.propensity is None:
        return calibrated
    inverse_L = bundle.arrays[layout.INVERSE_PROPENSITIES]
    return PropensityScoring(calibrated, inverse_L, manifest.propensity.weight, manifest.propensity.candidates)


def _function(rank_map: PlattMap | IsotonicMap) -> Callable[[Floats], Floats]:
    if isinstance(rank_map, IsotonicMap):
        return partial(_interpolated, knots=np.array([rank_map.scores, rank_map.probabilities]))
    return partial(logistic, slope=rank_map.slope, intercept=rank_map.intercept)


def _interpolated(scores_QK: Floats, knots: Floats) -> Floats:
    result_QK: Floats = np.interp(scores_QK, knots[0], knots[1])
    return result_QK


def logistic(scores_QK: Floats, slope: float, intercept: float) -> Floats:
    """1 / (1 + exp(-(slope * score + intercept))) of each score."""
    logits_QK = slope * scores_QK + intercept
    decay_QK = np.exp(-np.abs(logits_QK))  # at most 1: nothing overflows
    result_QK: Floats = np.where(logits_QK >= 0, 1.0, decay_QK) / (1.0 + decay_QK)
    return result_QK
