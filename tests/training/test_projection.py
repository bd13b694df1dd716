"""Singular value projection against dense matrices: which pairs, one step, and an error that falls."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.sparse import csr_array

from training import projection
from training.projection import near_products, preserve_neighbours, project, residual
from training.svd import right_factors


def label_rows(seed: int, rows: int = 40, labels: int = 12) -> NDArray[np.float64]:
    draw = np.random.default_rng(seed)
    return (draw.random((rows, labels)) < 0.25) * draw.choice([0.5, 1.0], (rows, labels))


def naive_pairs(rows_NL: NDArray[np.float64], neighbours: int) -> NDArray[np.bool_]:
    products_NN = rows_NL @ rows_NL.T
    pairs = np.zeros(products_NN.shape, dtype=bool)
    for row, products in enumerate(products_NN.tolist()):
        near = sorted((other for other in range(len(products)) if products[other] > 0), key=lambda o: (-products[o], o))
        for other in (*near[:neighbours], *([row] if products[row] else [])):
            pairs[row, other] = pairs[other, row] = True
    return pairs


@pytest.mark.parametrize("numbers", [1, 100, 1 << 22])
@given(seed=st.integers(0, 1000), neighbours=st.integers(1, 12))
def test_pairs_are_those_of_near_rows(numbers: int, seed: int, neighbours: int) -> None:
    """Of either row's nearest, ties by row, and each row with itself; however they are cut into blocks."""
    rows_NL = label_rows(seed, rows=12, labels=6)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(projection, "NUMBERS_AT_ONCE", numbers)
        found = near_products(csr_array(rows_NL), neighbours).toarray()
    pairs = naive_pairs(rows_NL, neighbours)
    np.testing.assert_array_equal(found, np.where(pairs, rows_NL @ rows_NL.T, 0))


def test_a_step_is_the_best_approximation_of_its_dense_form() -> None:
    rows_NL = label_rows(1)
    products_NN = near_products(csr_array(rows_NL), 6)
    rows_NC = np.random.default_rng(2).standard_normal((40, 5))
    gram_NN, pairs_NN = rows_NC @ rows_NC.T, (products_NN != 0).toarray()
    difference_NN = np.where(pairs_NN, gram_NN - rows_NL @ rows_NL.T, 0)
    found = residual(rows_NC, products_NN)
    np.testing.assert_allclose(found.toarray(), difference_NN, atol=1e-12)
    values, vectors = np.linalg.eigh(gram_NN - difference_NN)
    best = vectors[:, -5:] * np.maximum(values[-5:], 0) @ vectors[:, -5:].T
    projected_NC = rows_NC
    for _ in range(30):  # the randomised projection converges to it
        projected_NC = project(projected_NC, _difference(projected_NC, gram_NN - difference_NN), draw())
    np.testing.assert_allclose(projected_NC @ projected_NC.T, best, atol=1e-5)


def _difference(rows_NC: NDArray[np.float64], wanted_NN: NDArray[np.float64]) -> csr_array:
    """What has to be taken from Z Z' to have the wanted matrix projected."""
    return csr_array(rows_NC @ rows_NC.T - wanted_NN)


def draw() -> np.random.Generator:
    return np.random.default_rng(0)


def errors(rows_NL: NDArray[np.float64], rows_NC: NDArray[np.floating], neighbours: int) -> float:
    pairs = naive_pairs(rows_NL, neighbours)
    return float((np.where(pairs, rows_NC @ rows_NC.T - rows_NL @ rows_NL.T, 0) ** 2).sum())


@pytest.mark.parametrize("seed", range(5))
def test_the_error_of_near_pairs_falls_from_the_svds(seed: int) -> None:
    rows_NL = label_rows(seed)
    start_NC = rows_NL @ right_factors(csr_array(rows_NL), 4, 0)
    rows_NC, products_NN = start_NC.astype(np.float64), near_products(csr_array(rows_NL), 4)
    seen = [errors(rows_NL, rows_NC, 4)]
    for _ in range(8):
        rows_NC = project(rows_NC, residual(rows_NC, products_NN), draw())
        seen.append(errors(rows_NL, rows_NC, 4))
    assert all(later <= earlier * (1 + 1e-6) for earlier, later in pairwise(seen))
    assert seen[-1] < 0.9 * seen[0]
    whole = preserve_neighbours(csr_array(rows_NL), start_NC.astype(np.float32), 4, 0)
    assert whole.dtype == np.float32
    assert errors(rows_NL, whole.astype(np.float64), 4) < 0.9 * seen[0]


def test_full_rank_loses_nothing() -> None:
    rows_NL = label_rows(0)
    start_NC = rows_NL @ right_factors(csr_array(rows_NL), 12, 0)
    found = preserve_neighbours(csr_array(rows_NL), start_NC.astype(np.float32), 3, 0)
    np.testing.assert_allclose(found @ found.T, rows_NL @ rows_NL.T, atol=1e-4)


def test_equal_data_give_equal_bits_and_columns_have_their_sign() -> None:
    rows_NL = csr_array(label_rows(3))
    start_NC = (rows_NL @ right_factors(rows_NL, 4, 0)).astype(np.float32)
    one, again = (preserve_neighbours(rows_NL, start_NC, 5, 0) for _ in range(2))
    np.testing.assert_array_equal(one, again)
    assert (one[np.abs(one).argmax(axis=0), np.arange(4)] > 0).all()


def test_more_columns_than_other_rows_are_fine() -> None:
    """The basis has no room for further columns."""
    rows_NL = csr_array(np.eye(3))
    found = preserve_neighbours(rows_NL, np.eye(3, dtype=np.float32), 2, 0)
    np.testing.assert_allclose(np.abs(found), np.eye(3), atol=1e-6)
