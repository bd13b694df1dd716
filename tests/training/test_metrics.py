"""Measures against tables computed by hand: `tests/golden/metrics.json` holds them with their working."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.training.synthetic import matrix
from training import metrics

CASES: list[dict[str, Any]] = json.loads((Path(__file__).parents[1] / "golden" / "metrics.json").read_text())


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_golden(case: dict[str, Any]) -> None:
    ranks = sorted({int(name.partition("@")[2]) for name in case["expected"]})
    gains = np.array(case["inverse_propensities"], dtype=np.float64)
    targets = matrix([dict.fromkeys(labels, 1.0) for labels in case["true"]], len(gains))
    found = metrics.report(np.array(case["ranked"]), targets, gains, ranks)
    assert found == pytest.approx(case["expected"], abs=5e-7)


def test_inverse_propensities_by_hand() -> None:
    # N = 100, A = 1/2, B = 3: C = (ln 100 - 1) * sqrt(4) = 7.210340372, times 1/2, 1/3, 1/4 and 1/10.
    found = metrics.inverse_propensities(np.array([1, 6, 13, 97]), 100, 0.5, 3)
    assert found == pytest.approx([4.605170186, 3.403446791, 2.802585093, 1.721034037])


def test_frequent_labels_earn_less() -> None:
    found = metrics.inverse_propensities(np.array([0, 1, 10, 1000]), 5000, 0.55, 1.5)
    assert (np.diff(found) < 0).all()


def test_relevances_do_not_weigh_a_hit() -> None:
    ranked = np.array([[0, 1]])
    whole, soft = (metrics.report(ranked, matrix([{0: value}], 2), np.ones(2), [1, 2]) for value in (1.0, 0.125))
    assert whole == soft


@pytest.mark.parametrize("ks", [[0], [1, 3], [-1]])
def test_ranks_must_be_there(ks: list[int]) -> None:
    with pytest.raises(ValueError, match=r"between 1 and 2, found \["):
        metrics.report(np.array([[0, 1]]), matrix([{0: 1.0}], 2), np.ones(2), ks)


def test_calibration_error_by_hand() -> None:
    """Fifteen probabilities of two answers each: bins of equal mass hold one probability each."""
    probabilities = np.repeat(np.arange(15) / 15, 2)
    hits = np.zeros(30, dtype=bool)
    hits[[1, 28, 29]] = True  # of the least likely one in two, of the likeliest both
    expected = (abs(0 - 1) + sum(2 * place / 15 for place in range(1, 14)) + abs(2 * 14 / 15 - 2)) / 30
    assert metrics.calibration_error(probabilities, hits) == pytest.approx(expected)
    assert metrics.calibration_error(np.empty(0), np.empty(0, dtype=bool)) == 0


def test_calibration_error_knows_nothing_of_the_order() -> None:
    """Also where probabilities are equal: they are never in two bins."""
    rng = np.random.default_rng(0)
    probabilities = rng.choice([0.1, 0.2, 0.25, 0.9], 200, p=[0.7, 0.1, 0.1, 0.1])
    hits = rng.random(200) < 0.4
    by_value = [abs((hits[probabilities == value] - value).sum()) for value in np.unique(probabilities)]
    order = rng.permutation(200)
    assert metrics.calibration_error(probabilities, hits) == pytest.approx(sum(by_value) / 200)
    assert metrics.calibration_error(probabilities[order], hits[order]) == pytest.approx(sum(by_value) / 200)


def test_constant_ranking_breaks_ties_by_row() -> None:
    assert metrics.constant_ranking(np.array([2, 5, 5, 9]), 2, 3).tolist() == [[3, 1, 2], [3, 1, 2]]
