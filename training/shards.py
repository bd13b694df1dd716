"""A sparse label matrix in shards of rows, and what each of them adds to Y'Y times a basis.

The shards follow from the matrix alone, and what they give is added in their order: so the sum is the same to the bit
wherever, and in whatever order, the shards are multiplied.

Letters: N rows, S rows of a shard, L labels, W columns of a basis. Torch is not imported here, as a process that
multiplies shards has no other use for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

ROWS_AT_ONCE = 1 << 14

Floats = NDArray[np.float64]

# Gives the product of each shard with a basis, in the shards' order.
Products = Callable[[Floats], Iterable[Floats]]
# Brings the shards of a matrix to where they are multiplied.
Placed = Callable[[csr_array], Products]


def shard_rows(rows: int, labels: int) -> int:
    """Rows of a shard: not fewer than labels, since what a shard gives is as large as they are.

    Args:
        rows: N.
        labels: L.
    """
    return min(rows, max(ROWS_AT_ONCE, labels))


def row_shards(matrix_NL: csr_array) -> Iterator[csr_array]:
    """The matrix cut into shards of `shard_rows` rows; the last may have fewer."""
    step = shard_rows(*matrix_NL.shape)
    for low in range(0, matrix_NL.shape[0], step):
        yield matrix_NL[low : low + step]


def shard_product(rows_SL: csr_array, basis_LW: Floats) -> Floats:
    """A shard's share of Y'Y times a basis, float64 (L, W)."""
    product_LW: Floats = rows_SL.T @ (rows_SL @ basis_LW)
    return product_LW


def placed_here(matrix_NL: csr_array) -> Products:
    """Shards that this process multiplies one after another."""

    def products(basis_LW: Floats) -> Iterator[Floats]:
        for rows_SL in row_shards(matrix_NL):
            yield shard_product(rows_SL, basis_LW)

    return products
