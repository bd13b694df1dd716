"""Truncated SVD of a sparse label matrix, reproducible to the bit for one seed.

Randomised subspace iteration on Y'Y, then its best vectors within the subspace (Rayleigh and Ritz): Halko, Martinsson
and Tropp, "Finding structure with randomness", SIAM Review 2011, algorithms 4.4 and 5.3. Y'Y is never made, nor
anything dense of N rows: Y is only ever multiplied with a basis of few columns, a shard of rows at a time
(`training.shards`), here or wherever the shards are. Singular values below 1e-8 of the largest, which Y'Y loses in
rounding, are none in float32.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array

from training.shards import Floats, Placed, Products, placed_here, shard_rows

OVERSAMPLING = 10
POWER_ITERATIONS = 4
# Passes over the rows: one for each iteration, and one for the vectors.
PASSES = POWER_ITERATIONS + 1


def right_factors(matrix_NL: csr_array, rank: int, seed: int, placed: Placed = placed_here) -> NDArray[np.float32]:
    """The leading right singular vectors V_c of ``matrix_NL``.

    Each column's entry of largest magnitude is positive, so that files written from equal data are equal.

    Args:
        matrix_NL: sparse label matrix Y, N rows and L labels.
        rank: number of singular vectors c; at most min(N, L).
        seed: seed of the random test matrix.
        placed: where shards of rows are multiplied; the result is the same to the bit.

    Returns:
        float32 of shape (L, c) with orthonormal columns, by falling singular value.

    Raises:
        ValueError: ``rank`` is not between 1 and min(N, L).
    """
    rows, labels = matrix_NL.shape
    if not 1 <= rank <= min(rows, labels):
        raise ValueError(f"rank must lie between 1 and min(N, L) = {min(rows, labels)}, not {rank}")
    products = placed(matrix_NL)
    basis_LW = np.random.default_rng(seed).standard_normal((labels, basis_columns(rank, rows, labels)))
    for _ in range(POWER_ITERATIONS):
        # In two lines, so that no basis outlives its use; and by rows, which sparse products would make a copy for.
        basis_LW = _times_gram(products, basis_LW)
        basis_LW = np.ascontiguousarray(orthonormal(basis_LW))
    small_WW = basis_LW.T @ _times_gram(products, basis_LW)
    vectors_WW = torch.linalg.eigh(torch.from_numpy((small_WW + small_WW.T) / 2)).eigenvectors
    # Not NumPy's product: its BLAS keeps what it copies of so tall a matrix, 17 MiB of 9,838 x 210, for good.
    factors_LC: Floats = (torch.from_numpy(basis_LW) @ vectors_WW.flip(1)[:, :rank]).numpy()
    factors_LC *= positive_peaks(factors_LC)
    return np.ascontiguousarray(factors_LC, dtype=np.float32)


def workspace_bytes(rows: int, labels: int, rank: int) -> int:
    """Memory that `right_factors` holds at its peak: a basis, its product with Y'Y, and a shard's product on its way.

    Args:
        rows: N.
        labels: L.
        rank: number of singular vectors c.
    """
    return (3 * labels + shard_rows(rows, labels)) * basis_columns(rank, rows, labels) * np.float64().nbytes


def _times_gram(products: Products, basis_LW: Floats) -> Floats:
    """Y'Y times a basis, (L, W): the sum of all shards' products, in their order."""
    total_LW = np.zeros_like(basis_LW)
    for product_LW in products(basis_LW):
        total_LW += product_LW
        del product_LW  # before the next one is made
    return total_LW


def basis_columns(rank: int, rows: int, labels: int) -> int:
    """Columns W of a basis that has room for so many singular vectors."""
    return min(rank + OVERSAMPLING, rows, labels)


def orthonormal(columns: Floats) -> Floats:
    """An orthonormal basis of the columns' span, of the same shape."""
    # torch's QR, since NumPy's took 4 to 10 times as long on 35,110 x 210.
    basis: Floats = torch.linalg.qr(torch.from_numpy(columns)).Q.numpy()
    return basis


def positive_peaks(factors_LC: Floats) -> Floats:
    """Sign of each column that makes its entry of largest magnitude positive, (C,)."""
    peaks = np.abs(factors_LC).argmax(axis=0)
    return np.where(factors_LC[peaks, np.arange(factors_LC.shape[1])] < 0, -1.0, 1.0)
