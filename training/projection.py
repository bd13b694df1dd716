"""Neighbour-preserving compression of a label matrix: rows of Z whose inner products are right where it matters.

A truncated SVD approximates all inner products of label rows; DECLARE reads only those of near rows. Singular value
projection (Jain, Meka and Dhillon, "Guaranteed Rank Minimization via Singular Value Projection", NeurIPS 2010; for
labels: Bhatia, Jain, Kar, Varma and Jain, "Sparse Local Embeddings for Extreme Multi-label Classification", NeurIPS
2015) minimises

    || P(Y Y') - P(Z Z') ||_F^2

over Z of C columns, where P keeps the pairs of rows that are near each other: a gradient step on those pairs, then back
to the nearest matrix of rank C, again and again. It starts from the SVD, as DECLARE's authors propose, so that what is
not among the pairs starts right as well. With a step of 1 the error never rises, up to what the randomised projection
misses.

Nothing of N x N is made: Z Z' is kept as Z, the step's change is as sparse as the pairs, and their sum is only ever
multiplied with a few columns. It takes six arrays of N x C in float64 beside the pairs, and for each of the
iterations (4 C (C + the number of pairs of a row)) N multiplications.

Letters: N rows, L labels, C dimensions of Z, W columns of a basis, P pairs.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array, vstack

from training.svd import OVERSAMPLING, orthonormal, positive_peaks

ITERATIONS = 10
POWER_ITERATIONS = 2

# Numbers of a block that are held at a time: 32 MB.
NUMBERS_AT_ONCE = 1 << 22

Floats = NDArray[np.float64]


def preserve_neighbours(
    rows_NL: csr_array, start_NC: NDArray[np.float32], neighbours: int, seed: int
) -> NDArray[np.float32]:
    """Rows of Z whose inner products are those of the label rows, for pairs of near rows.

    Args:
        rows_NL: label rows, preferably distinct.
        start_NC: rows of Z to begin with: those of the truncated SVD.
        neighbours: a pair is kept if one of its rows is among so many that are nearest to the other; a row is a pair
            with itself, and rows without a common label are none.
        seed: of the random columns that the projection's basis begins with.

    Returns:
        float32 (N, C), columns by falling length; each column's entry of largest magnitude is positive.
    """
    products_NN = near_products(rows_NL, neighbours)
    rows_NC = start_NC.astype(np.float64)
    rng = np.random.default_rng(seed)
    for _ in range(ITERATIONS):
        rows_NC = project(rows_NC, residual(rows_NC, products_NN), rng)
    return np.ascontiguousarray(rows_NC * positive_peaks(rows_NC), dtype=np.float32)


def projection_bytes(rows: int, rank: int) -> int:
    """Memory that `preserve_neighbours` holds at its peak, beside the pairs: six arrays of all rows.

    Args:
        rows: N.
        rank: dimensions of Z.
    """
    return 6 * rows * (rank + OVERSAMPLING) * np.float64().nbytes


def near_products(rows_NL: csr_array, neighbours: int) -> csr_array:
    """Inner products of near rows, symmetric, as many as N times ``2 * neighbours + 1`` at most."""
    transposed_LN = csr_array(rows_NL.T)
    step = max(1, NUMBERS_AT_ONCE // rows_NL.shape[0])
    blocks = [
        _largest(csr_array(rows_NL[low : low + step] @ transposed_LN), low, neighbours)
        for low in range(0, rows_NL.shape[0], step)
    ]
    kept_NN = csr_array(vstack(blocks, format="csr"), dtype=np.float64)
    return csr_array(kept_NN.maximum(kept_NN.T))


def residual(rows_NC: Floats, products_NN: csr_array) -> csr_array:
    """What Z Z' has too much, for the pairs alone: the gradient of half the squared error."""
    lefts_P = np.repeat(np.arange(len(rows_NC)), np.diff(products_NN.indptr))
    found_P = np.empty(products_NN.nnz)
    step = max(1, NUMBERS_AT_ONCE // rows_NC.shape[1])
    for low in range(0, products_NN.nnz, step):
        pairs = slice(low, low + step)
        found_P[pairs] = np.einsum("pc,pc->p", rows_NC[lefts_P[pairs]], rows_NC[products_NN.indices[pairs]])
    return csr_array((found_P - products_NN.data, products_NN.indices, products_NN.indptr), shape=products_NN.shape)


def project(rows_NC: Floats, residual_NN: csr_array, rng: np.random.Generator) -> Floats:
    """The best Z of C columns for Z Z' less the residual: its leading eigenvectors by the roots of their eigenvalues.

    Found as in `training.svd`, within a space of a few more columns that starts from Z's own.
    """
    rows, width = rows_NC.shape
    extra = min(OVERSAMPLING, rows - width)
    basis_NW = orthonormal(np.hstack([rows_NC, residual_NN @ rng.standard_normal((rows, extra))]))
    for _ in range(POWER_ITERATIONS):
        basis_NW = orthonormal(_apply(rows_NC, residual_NN, basis_NW))
    small_WW = basis_NW.T @ _apply(rows_NC, residual_NN, basis_NW)
    values_W, vectors_WW = torch.linalg.eigh(torch.from_numpy((small_WW + small_WW.T) / 2))
    best_C = np.argsort(-values_W.numpy(), kind="stable")[:width]
    roots_C = np.sqrt(np.maximum(values_W.numpy()[best_C], 0))
    projected_NC: Floats = (basis_NW @ vectors_WW.numpy()[:, best_C]) * roots_C
    return projected_NC


def _apply(rows_NC: Floats, residual_NN: csr_array, columns_NW: Floats) -> Floats:
    product_NW: Floats = rows_NC @ (rows_NC.T @ columns_NW) - residual_NN @ columns_NW
    return product_NW


def _largest(products_BN: csr_array, first: int, count: int) -> csr_array:
    """The largest products of each row of a block, ties by column, and that of the row with itself."""
    lines = np.repeat(np.arange(products_BN.shape[0]), np.diff(products_BN.indptr))
    order = np.lexsort((products_BN.indices, -products_BN.data, lines))
    places = np.arange(len(order)) - products_BN.indptr[lines]
    kept = order[(places < count) | (products_BN.indices[order] == lines[order] + first)]
    return csr_array((products_BN.data[kept], (lines[kept], products_BN.indices[kept])), shape=products_BN.shape)
