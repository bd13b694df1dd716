"""Linear classifiers are the minimum of their objective, whatever else is trained beside them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.sparse import csr_array

from training import svm

Floats = NDArray[np.float64]


def problem(seed: int, rows: int, words: int, labels: int) -> tuple[csr_array, csr_array, csr_array]:
    """Unit rows, relevances and negatives."""
    rng = np.random.default_rng(seed)
    inputs = rng.random((rows, words)) * (rng.random((rows, words)) < 0.4) + 0.01 * np.eye(rows, words)
    inputs /= np.maximum(1e-9, np.linalg.norm(inputs, axis=1, keepdims=True))
    targets = (rng.random((rows, labels)) < 0.2) * rng.choice([1.0, 0.3], size=(rows, labels))
    negatives = rng.random((rows, labels)) < 0.7
    return csr_array(inputs, dtype=np.float32), csr_array(targets, dtype=np.float32), csr_array(negatives)


def objective(weights: Floats, inputs: Floats, sides: Floats, costs: Floats) -> tuple[float, Floats]:
    """Its value and gradient."""
    missed = np.maximum(0, 1 - sides * (inputs @ weights - 1))
    value = 0.5 * weights @ weights + (costs * missed**2).sum()
    return float(value), weights - 2 * inputs.T @ (costs * sides * missed)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31 - 1), cost=st.sampled_from([0.1, 1.0, 5.0]))
def test_a_classifier_is_the_minimum_of_its_objective(seed: int, cost: float) -> None:
    inputs, targets, negatives = problem(seed, 30, 8, 3)
    found = svm.fit_classifiers(inputs, targets, negatives, cost=cost, least_weight=0, seed=0).toarray()
    x, relevance, negative = inputs.toarray().astype(float), targets.toarray(), negatives.toarray()
    for label in range(3):
        positive = relevance[:, label] > 0
        rows = positive | negative[:, label]
        if not positive.any():
            assert not found[:, label].any()
            continue
        given_ = x[rows], np.where(positive, 1.0, -1.0)[rows], cost * np.where(positive, relevance[:, label], 1)[rows]
        best = minimize(objective, np.zeros(8), args=given_, jac=True, method="L-BFGS-B")
        value, _ = objective(found[:, label].astype(float), *given_)
        # As close as its tolerance and passes allow; a classifier of 0 is far above.
        assert value <= 1.05 * best.fun + 1e-6


def test_rows_that_share_no_word_with_a_label_change_nothing() -> None:
    """That is why a classifier may be trained on few rows."""
    own = np.array([[1, 0, 0, 0], [0.6, 0.8, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0.6, 0.8]], dtype=np.float32)
    targets = csr_array(np.array([[1], [1], [0], [0], [0]], dtype=np.float32))
    near, all_rows = np.array([0, 0, 1, 0, 0]), np.array([0, 0, 1, 1, 1])
    found = [
        svm.fit_classifiers(
            csr_array(own), targets, csr_array(negatives[:, None] > 0), cost=1, least_weight=0, seed=0
        ).toarray()
        for negatives in (near, all_rows)
    ]
    np.testing.assert_allclose(found[1], found[0], atol=0.05)  # the gradient is stopped at 0.1
    assert not found[1][2:].any()


def test_a_label_s_classifier_does_not_depend_on_its_company(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, targets, negatives = problem(1, 40, 10, 9)
    together = svm.fit_classifiers(inputs, targets, negatives, cost=1, least_weight=0.01, seed=3)
    monkeypatch.setattr(svm, "LABELS_AT_ONCE", 2)
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    apart = svm.fit_classifiers(inputs, targets, negatives, cost=1, least_weight=0.01, seed=3)
    np.testing.assert_array_equal(apart.toarray(), together.toarray())


def test_small_weights_are_dropped_and_others_kept() -> None:
    inputs, targets, negatives = problem(2, 40, 10, 3)
    every = svm.fit_classifiers(inputs, targets, negatives, cost=1, least_weight=0, seed=0).toarray()
    large = svm.fit_classifiers(inputs, targets, negatives, cost=1, least_weight=0.3, seed=0)
    np.testing.assert_array_equal(large.toarray(), np.where(np.abs(every) >= 0.3, every, 0))
    assert 0 < large.nnz < np.count_nonzero(every)


def test_costs_are_of_relevances() -> None:
    """A row that counts less is fitted less."""
    inputs = csr_array(np.array([[1.0, 0], [0, 1]], dtype=np.float32))
    targets = csr_array(np.array([[1.0], [0.2]], dtype=np.float32))
    found = svm.fit_classifiers(inputs, targets, csr_array((2, 1), dtype=bool), cost=1, least_weight=0, seed=0)
    # One row a word: ½ w² + c (2 - w)² is least where w = 4c / (1 + 2c).
    np.testing.assert_allclose(found.toarray()[:, 0], [4 / 3, 0.8 / 1.4], rtol=1e-5)
