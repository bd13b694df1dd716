"""From raw scores to probabilities: both regressions by hand and against references, the choice between them, ranks."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from pydantic import ValidationError
from scipy.optimize import isotonic_regression, minimize
from scipy.special import expit, logit

from training.calibration import (
    FOLDS,
    ISOTONIC_ROWS,
    MOST_POOLS,
    Calibration,
    IsotonicMap,
    PlattMap,
    RankMap,
    fit_calibration,
    fit_isotonic,
    fit_map,
    fit_platt,
    held_out_loss,
    log_loss,
    pool_adjacent_violators,
)

SCORES = st.floats(-1000, 1000, width=32)


@st.composite
def answers(draw: st.DrawFn, most: int = 80) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Scores, many of them equal, and whether each answer is right."""
    size = draw(st.integers(1, most))
    scores = draw(hnp.arrays(np.float64, size, elements=st.one_of(SCORES, st.sampled_from([0.0, 1.0]))))
    return scores, draw(hnp.arrays(np.bool_, size))


@st.composite
def rankings(draw: st.DrawFn) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Raw scores float32 (N, K) that fall in each row, some rows cut off by NaN, and hits."""
    shape = draw(st.tuples(st.integers(1, 12), st.integers(1, 14)))
    scores = -np.sort(-draw(hnp.arrays(np.float32, shape, elements=SCORES)), axis=1)
    lengths = draw(hnp.arrays(np.int64, shape[0], elements=st.integers(0, shape[1])))
    scores[np.arange(shape[1]) >= lengths[:, None]] = np.nan
    return scores, draw(hnp.arrays(np.bool_, shape))


def test_pooling_by_hand() -> None:
    # 3 and 1 are in the wrong order and become 2 each, 4 and 3 become 3.5; 2.5 lies between and stays.
    found = pool_adjacent_violators(np.array([0.0, 3.0, 1.0, 2.5, 4.0, 3.0]), np.ones(6))
    assert found.tolist() == [0, 2, 2, 2.5, 3.5, 3.5]
    assert pool_adjacent_violators(np.array([3.0, 1.0]), np.array([1, 3])).tolist() == [1.5, 1.5]
    # 3 and -2 become 0.5, which is below 2, and so on to the first.
    assert pool_adjacent_violators(np.array([1.0, 2.0, 3.0, -2.0]), np.ones(4)).tolist() == [1, 1, 1, 1]


@given(
    st.lists(st.tuples(st.floats(-10, 10, width=32), st.floats(0.125, 8, width=32)), min_size=1, max_size=30),
)
def test_pooling_is_scipys_isotonic_regression(pairs: list[tuple[float, float]]) -> None:
    values, weights = np.array(pairs).T
    expected = isotonic_regression(values, weights=weights).x
    np.testing.assert_allclose(pool_adjacent_violators(values, weights), expected, rtol=0, atol=1e-9)


def test_isotonic_by_hand() -> None:
    """Forty answers in two groups of twenty: hit rates 5/20 and 15/20, each with one more of the average 21/42."""
    scores = np.concatenate([np.arange(20.0), np.arange(100.0, 120.0)])
    hits = np.concatenate([np.arange(20) < 5, np.arange(20) < 15])
    fitted = fit_isotonic(scores, hits)
    assert fitted.scores == (9.5, 109.5)
    assert fitted.probabilities == pytest.approx([5.5 / 21, 15.5 / 21])
    middle = (5.5 + 15.5) / 2 / 21
    assert fitted(np.array([-50.0, 9.5, 59.5, 1e9])) == pytest.approx([5.5 / 21, 5.5 / 21, middle, 15.5 / 21])


def test_isotonic_pools_groups_that_fall() -> None:
    hits = np.concatenate([np.arange(20) < 15, np.arange(20) < 5])
    fitted = fit_isotonic(np.arange(40.0), hits)
    assert (fitted.scores, fitted.probabilities) == ((19.5,), (0.5,))


def test_equal_scores_have_one_probability() -> None:
    """Votes are often exactly 0: one knot, wherever the limits of equal groups would fall."""
    scores = np.concatenate([np.zeros(90), np.arange(1.0, 11.0)])
    fitted = fit_isotonic(scores, np.arange(100) % 3 == 0)
    assert 0.0 in fitted.scores
    assert all(score >= 1 for score in fitted.scores if score)


def test_knots_are_few() -> None:
    rng = np.random.default_rng(0)
    scores = rng.random(5000)
    fitted = fit_isotonic(scores, rng.random(5000) < scores)
    assert 5 < len(fitted.scores) <= MOST_POOLS


@given(answers())
def test_isotonic_maps_are_sound(case: tuple[NDArray[np.float64], NDArray[np.bool_]]) -> None:
    scores, hits = case
    fitted = fit_isotonic(scores, hits)
    assert IsotonicMap.model_validate_json(fitted.model_dump_json()) == fitted
    assert all(0 < probability < 1 for probability in fitted.probabilities)
    rising = fitted(np.sort(scores))
    assert (np.diff(rising) >= -1e-12).all()


def platt_loss(weights: NDArray[np.float64], scores: NDArray[np.float64], hits: NDArray[np.bool_]) -> float:
    """Cross-entropy to Platt's targets."""
    targets = np.where(hits, (hits.sum() + 1) / (hits.sum() + 2), 1 / ((~hits).sum() + 2))
    values = weights[0] * scores + weights[1]
    return float((targets * np.logaddexp(0, -values) + (1 - targets) * np.logaddexp(0, values)).sum())


@given(answers(most=30))
def test_platt_is_the_minimum_that_scipy_finds(case: tuple[NDArray[np.float64], NDArray[np.bool_]]) -> None:
    scores, hits = case
    scores = scores / 500
    fitted = fit_platt(scores, hits)
    found = minimize(platt_loss, [0.0, 0.0], args=(scores, hits), bounds=[(0, None), (None, None)], method="L-BFGS-B")
    assert platt_loss(np.array([fitted.slope, fitted.intercept]), scores, hits) <= found.fun + 1e-6


def test_platt_recovers_the_curve_that_drew_the_hits() -> None:
    """Sums of logits reach hundreds: the fit must not suffer from their scale."""
    rng = np.random.default_rng(0)
    for centre, spread in ((0.5, 0.1), (-700.0, 90.0)):
        scores = centre + spread * rng.standard_normal(50_000)
        fitted = fit_platt(scores, rng.random(50_000) < expit(2 * (scores - centre) / spread - 1))
        assert fitted.slope * spread == pytest.approx(2, rel=0.05)
        assert fitted.slope * centre + fitted.intercept == pytest.approx(-1, rel=0.05)


def test_platt_is_level_where_higher_scores_are_worse() -> None:
    fitted = fit_platt(np.arange(10.0), np.arange(10) < 3)
    targets = (3 * 4 / 5 + 7 * 1 / 9) / 10
    assert (fitted.slope, fitted.intercept) == (0, pytest.approx(logit(targets)))


@pytest.mark.parametrize("hits", [np.zeros(7, dtype=bool), np.ones(7, dtype=bool), np.arange(7) > 3])
@pytest.mark.parametrize("scores", [np.arange(7.0), np.full(7, -300.0), np.array([-1e30, 0, 0, 0, 0, 1e30, 1e30])])
def test_no_data_sends_a_curve_to_infinity(scores: NDArray[np.float64], hits: NDArray[np.bool_]) -> None:
    """All wrong, all right, perfectly separated; equal scores and huge ones."""
    for fit in (fit_platt, fit_isotonic):
        probabilities = fit(scores, hits)(scores)
        assert ((probabilities > 0) & (probabilities < 1)).all()


def test_log_loss_by_hand() -> None:
    found = log_loss(np.array([0.5, 0.25, 0.9]), np.array([True, False, True]))
    assert found == pytest.approx(-(np.log(0.5) + np.log(0.75) + np.log(0.9)) / 3)
    assert log_loss(np.array([0.0]), np.array([True])) == pytest.approx(-np.log(1e-12))
    assert log_loss(np.empty(0), np.empty(0, dtype=bool)) == 0


def test_held_out_loss_judges_each_fold_by_the_others() -> None:
    rng = np.random.default_rng(0)
    scores, hits = rng.random((20, 2)), rng.random((20, 2)) < 0.5
    folds = np.arange(20) % FOLDS
    probabilities = np.empty((20, 2))
    for fold in range(FOLDS):
        fitted = fit_platt(scores[folds != fold].ravel(), hits[folds != fold].ravel())
        probabilities[folds == fold] = fitted(scores[folds == fold])
    expected = log_loss(probabilities.ravel(), hits.ravel())
    assert held_out_loss(fit_platt, scores, hits, folds) == pytest.approx(expected)


def drawn(curve: str, rows: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """One score a row, and hits drawn by a curve that one family can follow."""
    rng = np.random.default_rng(1)
    scores = rng.uniform(-3, 3, (rows, 1))
    probabilities = expit(scores) if curve == "logistic" else np.where(np.abs(scores) < 1.5, 0.5, scores > 0)
    return scores, rng.random((rows, 1)) < probabilities


def test_the_family_that_holds_on_other_rows_is_chosen() -> None:
    assert fit_map(*drawn("logistic", 2000), seed=0).kind == "platt"
    assert fit_map(*drawn("stairs", 2000), seed=0).kind == "isotonic"


def test_few_rows_get_platt() -> None:
    assert fit_map(*drawn("stairs", ISOTONIC_ROWS), seed=0).kind == "isotonic"
    assert fit_map(*drawn("stairs", ISOTONIC_ROWS - 1), seed=0).kind == "platt"


def test_the_choice_is_by_held_out_rows_not_by_fitted_ones() -> None:
    """A free curve comes nearer to the rows it is fitted to, even where they are pure chance."""
    rng = np.random.default_rng(0)
    scores, hits = rng.random((300, 1)), rng.random((300, 1)) < 0.5
    own = [
        log_loss(fit(scores.ravel(), hits.ravel())(scores.ravel()), hits.ravel()) for fit in (fit_platt, fit_isotonic)
    ]
    assert own[1] < own[0]
    assert fit_map(scores, hits, seed=0).kind == "platt"


def test_each_of_the_first_ranks_has_its_map_and_deeper_ones_share() -> None:
    rng = np.random.default_rng(0)
    scores = rng.random((1000, 20))
    # At equal scores, deeper ranks are right less often.
    hits = rng.random(scores.shape) < scores * 0.7 ** np.arange(20)
    fitted = fit_calibration(scores, hits, seed=0)
    assert [each.first_rank for each in fitted.ranks] == [1, 2, 3, 4, 5, 6, 11]
    for low, high, each in zip((0, 1, 4, 5, 10), (1, 2, 5, 10, 20), (0, 1, 4, 5, 6), strict=True):
        assert fitted.ranks[each].map == fit_map(scores[:, low:high], hits[:, low:high], seed=0)
    by_rank = fitted.probabilities(np.full((1, 300), 0.5))[0]
    assert by_rank[0] > by_rank[1] > by_rank[2] > by_rank[4] > by_rank[7] > by_rank[50]
    assert (by_rank[10:] == by_rank[10]).all()  # beyond the fitted ranks, too


def test_few_labels_have_few_maps() -> None:
    scores, hits = np.array([[3.0, 2.0, 1.0]] * 4), np.array([[True, False, False]] * 4)
    assert [each.first_rank for each in fit_calibration(scores, hits, seed=0).ranks] == [1, 2, 3]


def test_probabilities_never_contradict_the_order() -> None:
    """The second rank's map says more than the first's at these scores; it is held down."""
    maps = (PlattMap(slope=0, intercept=-1), PlattMap(slope=1, intercept=0))
    fitted = Calibration(ranks=(RankMap(first_rank=1, map=maps[0]), RankMap(first_rank=2, map=maps[1])))
    found = fitted.probabilities(np.array([[5.0, 4.0, -4.0]]))
    assert found[0].tolist() == pytest.approx([expit(-1), expit(-1), expit(-4)])


@given(rankings())
def test_a_calibration_gives_probabilities_in_the_order_of_the_scores(
    case: tuple[NDArray[np.float32], NDArray[np.bool_]],
) -> None:
    scores, hits = case
    fitted = fit_calibration(scores, hits, seed=0)
    found = fitted.probabilities(scores)
    missing = np.isnan(scores)
    np.testing.assert_array_equal(np.isnan(found), missing)
    assert ((found[~missing] >= 0) & (found[~missing] <= 1)).all()
    assert (np.nan_to_num(np.diff(found, axis=1)) <= 0).all()
    assert Calibration.model_validate_json(fitted.model_dump_json()) == fitted


@given(rankings(), st.integers(1, 14))
def test_a_shorter_answer_is_the_beginning_of_a_longer_one(
    case: tuple[NDArray[np.float32], NDArray[np.bool_]], k: int
) -> None:
    scores, hits = case
    fitted = fit_calibration(scores, hits, seed=0)
    np.testing.assert_array_equal(fitted.probabilities(scores)[:, :k], fitted.probabilities(scores[:, :k]))


def test_the_seed_draws_the_folds() -> None:
    rng = np.random.default_rng(0)
    scores = rng.random((ISOTONIC_ROWS, 1))
    hits = rng.random(scores.shape) < 0.2 + 0.3 * (scores > 0.6)  # a small step: the choice hangs on the folds
    kinds = [fit_map(scores, hits, seed).kind for seed in range(12)]
    assert kinds == [fit_map(scores, hits, seed).kind for seed in range(12)]
    assert set(kinds) == {"platt", "isotonic"}


GOOD = {
    "ranks": [
        {"first_rank": 1, "map": {"kind": "isotonic", "scores": [0, 1], "probabilities": [0.1, 0.9]}},
        {"first_rank": 3, "map": {"kind": "platt", "slope": 1, "intercept": 0}},
    ]
}


@pytest.mark.parametrize(
    ("place", "change", "sentence"),
    [
        ((0, "map"), {"scores": [1, 1]}, "expected knots that rise"),
        ((0, "map"), {"probabilities": [0.9, 0.1]}, "expected knots that rise"),
        ((0, "map"), {"probabilities": [0.1]}, "expected as many probabilities as scores, 2"),
        ((0, "map"), {"probabilities": [0.1, 1.1]}, "less than or equal to 1"),
        ((0, "map"), {"kind": "spline"}, "spline"),
        ((1, "map"), {"slope": -1}, "greater than or equal to 0"),
        ((1, "map"), {"bias": 1}, "bias"),
        ((0,), {"first_rank": 2}, r"expected first ranks that rise from 1, found \[2, 3\]"),
        ((1,), {"first_rank": 1}, r"expected first ranks that rise from 1, found \[1, 1\]"),
    ],
)
def test_stored_maps_must_make_sense(place: tuple[int | str, ...], change: dict[str, object], sentence: str) -> None:
    content = json.loads(json.dumps(GOOD))
    Calibration.model_validate(content)
    target = content["ranks"]
    for step in place:
        target = target[step]
    target.update(change)
    with pytest.raises(ValidationError, match=sentence):
        Calibration.model_validate(content)
