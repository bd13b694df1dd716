"""What a bundle serves as the score of a label: sections of the manifest, and the array that re-ranking needs."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from model_export.errors import UsageError
from service.bundle.manifest import GREATEST_PROPENSITY_WEIGHT, CalibrationSection, PropensitySection
from training import metrics
from training.artifact import Artifact

Scores = Literal["calibrated", "raw"]

# Labels of an answer that may change places: what a weight of 1 lifts into the first ten comes from the first hundred.
CANDIDATES = 100


def calibration_section(artifact: Artifact, scores: Scores | None) -> CalibrationSection | None:
    """The artifact's calibration as bundles keep it; None where raw scores are to be served.

    Args:
        artifact: what is exported.
        scores: the user's choice; None for a calibration where there is one.

    Raises:
        UsageError: calibrated scores are asked of an artifact without a calibration.
    """
    if artifact.calibration is None:
        if scores == "calibrated":
            raise UsageError(
                f"--scores calibrated: expected an artifact with a calibration, found none in {artifact.path}"
            )
        return None
    if scores == "raw":
        return None
    return CalibrationSection.model_validate(artifact.calibration.model_dump())


def propensity_section(
    label_count: int, weight: float, calibration: CalibrationSection | None
) -> PropensitySection | None:
    """How answers are re-ranked; None where they are not.

    Args:
        label_count: of the bundle.
        weight: the user's choice.
        calibration: what is served.

    Raises:
        UsageError: the weight is out of range, or scores are raw: a sum of logits times a propensity means nothing.
    """
    greatest = GREATEST_PROPENSITY_WEIGHT
    if not 0 <= weight <= greatest:
        raise UsageError(f"--propensity-weight: expected a number from 0 to {greatest:g}, found {weight:g}")
    if weight == 0:
        return None
    if calibration is None:
        raise UsageError(f"--propensity-weight {weight:g}: expected calibrated scores to weight, found raw ones")
    return PropensitySection(weight=weight, candidates=min(CANDIDATES, label_count))


def inverse_propensities(artifact: Artifact, label_count: int) -> NDArray[np.float32]:
    """1 / p_l of every label, from its training points and the data card: float32 (L,).

    Args:
        artifact: what is exported.
        label_count: of the bundle, which may have labels without training points behind the artifact's.
    """
    config = artifact.config
    card = config.card
    counts_L = np.pad(artifact.label_counts, (0, label_count - len(artifact.label_counts)))
    return metrics.inverse_propensities(counts_L, config.counted_rows, card.propensity_a, card.propensity_b).astype(
        np.float32
    )
