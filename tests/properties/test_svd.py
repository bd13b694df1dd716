"""The truncated SVD against LAPACK's full one, and its promise of equal bytes for equal data."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.linalg import svds

from training.svd import right_factors

SINGULAR_VALUES = np.array([9.0, 7.0, 5.0, 3.0, 1.0, 0.5])


def label_matrix(rows: int, labels: int, seed: int, density: float = 0.3) -> csr_array:
    return csr_array((np.random.default_rng(seed).random((rows, labels)) < density).astype(np.float32))


@given(rows=st.integers(1, 11), labels=st.integers(1, 40), seed=st.integers(0, 10**6), data=st.data())
def test_captures_as_much_as_the_exact_factors(rows: int, labels: int, seed: int, data: st.DataObject) -> None:
    matrix_NL = label_matrix(rows, labels, seed)
    rank = data.draw(st.integers(1, min(rows, labels)))
    factors_LC = right_factors(matrix_NL, rank, seed)
    assert (factors_LC.shape, factors_LC.dtype) == ((labels, rank), np.float32)
    np.testing.assert_allclose(factors_LC.T @ factors_LC, np.eye(rank), atol=2e-5)
    singular = np.linalg.svd(matrix_NL.toarray(), compute_uv=False)[:rank]
    # The norms of Z's columns are the singular values, in falling order.
    np.testing.assert_allclose(np.linalg.norm(matrix_NL @ factors_LC, axis=0), singular, rtol=1e-4, atol=1e-4)


def test_subspace_is_that_of_the_exact_factors() -> None:
    matrix_NL = separated(SINGULAR_VALUES)
    exact_CL = np.linalg.svd(matrix_NL.toarray())[2][:4]
    arpack_CL = svds(matrix_NL.astype(np.float64), k=4, rng=np.random.default_rng(0))[2]
    factors_LC = right_factors(matrix_NL, 4, 0)
    for other_CL in (exact_CL, arpack_CL):
        np.testing.assert_allclose(factors_LC @ factors_LC.T, other_CL.T @ other_CL, atol=1e-5)
    # Distinct singular values: even the single vectors agree, but for their signs.
    np.testing.assert_allclose(np.abs(np.diag(exact_CL @ factors_LC)), np.ones(4), atol=1e-5)


def test_power_iterations_find_a_slowly_decaying_spectrum() -> None:
    matrix_NL = label_matrix(400, 300, 5, density=0.02)
    singular = svds(matrix_NL, k=20, return_singular_vectors=False, rng=np.random.default_rng(0))
    found = np.linalg.norm(matrix_NL @ right_factors(matrix_NL, 20, 0), axis=0)
    assert (found**2).sum() > 0.93 * (singular**2).sum()


def test_largest_entry_of_each_column_is_positive() -> None:
    factors_LC = right_factors(label_matrix(40, 30, 1), 10, 0)
    peaks = factors_LC[np.abs(factors_LC).argmax(axis=0), np.arange(10)]
    assert (peaks > 0).all()


def test_same_bytes_for_same_data_and_seed() -> None:
    first, second = (right_factors(label_matrix(200, 150, 2), 20, 3).tobytes() for _ in range(2))
    assert first == second


def test_seed_decides_nothing_but_rounding() -> None:
    matrix_NL = separated(SINGULAR_VALUES)
    np.testing.assert_allclose(right_factors(matrix_NL, 4, 0), right_factors(matrix_NL, 4, 99), atol=1e-5)


@pytest.mark.parametrize("rank", [0, -1, 6])
def test_rank_must_fit_the_matrix(rank: int) -> None:
    with pytest.raises(ValueError, match=rf"between 1 and min\(N, L\) = 5, not {rank}"):
        right_factors(label_matrix(5, 9, 0), rank, 0)


def separated(singular: NDArray[np.float64]) -> csr_array:
    """A matrix with the given singular values."""
    draw = np.random.default_rng(0)
    left = np.linalg.qr(draw.standard_normal((20, len(singular))))[0]
    right = np.linalg.qr(draw.standard_normal((15, len(singular))))[0]
    return csr_array((left * singular) @ right.T)
