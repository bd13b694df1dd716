"""What of the label matrix Y is compressed, and measures of the rows of Z that come out.

Letters: N training rows, G distinct ones, B rows of a block, L labels, C dimensions of Z.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from training.data.dataset import Dataset
from training.metrics import inverse_propensities
from training.shards import ROWS_AT_ONCE

# Share of the largest column's size below which a column's deviation is rounding.
FLAT = 1e-5
# Share of a row's length below which what the compression keeps of it has no direction to speak of, only rounding.
CAPTURED = 1e-2


def tail_weights(dataset: Dataset, power: float) -> NDArray[np.float32]:
    """Weight of each label's column: its inverse propensity (Jain et al., KDD 2016) to a power, float32 (L,)."""
    card = dataset.card
    propensities_L = inverse_propensities(
        dataset.label_counts, dataset.counted_rows, card.propensity_a, card.propensity_b
    )
    weights_L: NDArray[np.float32] = (propensities_L**power).astype(np.float32)
    return weights_L


def row_lengths(matrix: csr_array) -> NDArray[np.float64]:
    """Euclidean length of each row."""
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    lengths: NDArray[np.float64] = np.sqrt(
        np.bincount(rows, weights=matrix.data.astype(np.float64) ** 2, minlength=matrix.shape[0])
    )
    return lengths


def unit_rows(matrix: csr_array) -> csr_array:
    """The same matrix with every row that is not empty scaled to unit Euclidean length."""
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    data = (matrix.data / row_lengths(matrix)[rows]).astype(np.float32)
    return csr_array((data, matrix.indices, matrix.indptr), shape=matrix.shape)


@dataclass(frozen=True)
class Projected:
    """The rows of Z that factors make, block by block: they are never all in memory.

    Attributes:
        rows_GL: label rows.
        factors_LC: the factors.
    """

    rows_GL: csr_array
    factors_LC: NDArray[np.float32]

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        for low in range(0, self.rows_GL.shape[0], ROWS_AT_ONCE):
            yield self.rows_GL[low : low + ROWS_AT_ONCE] @ self.factors_LC


def kept_lengths(blocks: Iterable[NDArray[np.float32]], lengths_G: NDArray[np.float64]) -> NDArray[np.float64]:
    """Length of each row of Z; of a row that the compression drops, its length before, so that it is near nothing.

    Args:
        blocks: rows of Z, (B, C) each.
        lengths_G: of the rows before they were compressed.
    """
    kept_G = np.concatenate([np.sqrt(np.square(rows_BC, dtype=np.float64).sum(axis=1)) for rows_BC in blocks])
    return np.where(kept_G > CAPTURED * lengths_G, kept_G, lengths_G)


def column_deviations(blocks: Iterable[NDArray[np.float32]], counts_G: NDArray[np.int32]) -> NDArray[np.float64]:
    """Deviation of each column of Z over all training rows.

    A column that hardly varies keeps its own size, so that it is not blown up.

    Args:
        blocks: rows of Z, (B, C) each.
        counts_G: training rows that each row stands for.
    """
    sums, squares, low = [], [], 0
    for rows_BC in blocks:
        counts_B = counts_G[low : low + len(rows_BC)].astype(np.float64)
        sums.append(counts_B @ rows_BC)
        squares.append(counts_B @ np.square(rows_BC, dtype=np.float64))
        low += len(rows_BC)
    means_C, squares_C = np.sum(sums, axis=0) / counts_G.sum(), np.sum(squares, axis=0) / counts_G.sum()
    deviations_C, sizes_C = np.sqrt(np.maximum(squares_C - means_C**2, 0)), np.sqrt(squares_C)
    scales_C = np.where(deviations_C > FLAT * sizes_C.max(), deviations_C, sizes_C)
    return np.where(scales_C > 0, scales_C, 1.0)
