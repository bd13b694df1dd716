"""Inner products, compiled: each is summed up by itself, so it is the same to the bit in any company.

Letters: D dimensions, N rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.compiled import compiled, vectorised

Floats = NDArray[np.float32]


@vectorised
def inner_product(one_D: NDArray[Any], other_D: Floats) -> Any:
    """Of a row of integers or floats with one of floats."""
    total = np.float32(0)
    for place in range(len(other_D)):
        total += np.float32(one_D[place]) * other_D[place]
    return total


@compiled
def inner_products(rows_ND: Floats, vector_D: Floats, products_N: Floats) -> None:
    """Fill in the product of each row with the vector."""
    for row in range(len(rows_ND)):
        products_N[row] = inner_product(rows_ND[row], vector_D)
