"""Inner products, compiled: each is summed up by itself, so it is the same to the bit in any company.

Letters: D dimensions, Q vectors, N rows, M of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.search.compiled import compiled, vectorised

Floats = NDArray[np.float32]


@vectorised
def inner_product(one_D: NDArray[Any], other_D: Floats) -> Any:
    """Of a row of integers or floats with one of floats."""
    total = np.float32(0)
    for place in range(len(other_D)):
        total += np.float32(one_D[place]) * other_D[place]
    return total


def inner_products(vectors_QD: Floats, rows_ND: Floats) -> Floats:
    """Of each vector with every row, (Q, N)."""
    products_QN = np.empty((len(vectors_QD), len(rows_ND)), dtype=np.float32)
    _fill(vectors_QD, rows_ND, products_QN)
    return products_QN


def products_of_rows(vector_D: Floats, matrix_ND: Floats, rows_M: NDArray[np.int64]) -> Floats:
    """Of one vector with some rows of a matrix, (M,)."""
    products_M = np.empty(len(rows_M), dtype=np.float32)
    _fill_rows(vector_D, matrix_ND, rows_M, products_M)
    return products_M


@compiled
def _fill_rows(vector_D: Floats, matrix_ND: Floats, rows_M: NDArray[np.int64], products_M: Floats) -> None:
    for place in range(len(rows_M)):
        products_M[place] = inner_product(matrix_ND[rows_M[place]], vector_D)


@compiled
def _fill(vectors_QD: Floats, rows_ND: Floats, products_QN: Floats) -> None:
    for vector in range(len(vectors_QD)):
        for row in range(len(rows_ND)):
            products_QN[vector, row] = inner_product(rows_ND[row], vectors_QD[vector])
