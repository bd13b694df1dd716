"""The directions in which vectors lie more than in others: main axes by their squares.

They are not centred, as inner products are not.

Letters: L vectors, D dimensions, W directions.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]

# Kernels and vector instructions read so many numbers at a time.
AT_ONCE = 16
SAMPLE = 100_000


def main_axes(vectors_LD: Vectors) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """All D directions by row, those with most of the squares first, (D, D); and the share of each, (D,)."""
    wide_LD = vectors_LD.astype(np.float64)
    squares_D, directions_DD = np.linalg.eigh(wide_LD.T @ wide_LD)
    shares_D = squares_D[::-1] / max(squares_D.sum(), np.finfo(np.float64).tiny)
    return directions_DD[:, ::-1].T, shares_D


def directions_with(share: float, vectors_LD: Vectors) -> Vectors:
    """As few directions as hold a share of all squares, rounded up to `AT_ONCE` where there are so many: (W, D)."""
    directions_DD, shares_D = main_axes(sample(vectors_LD, SAMPLE))
    needed = int(np.searchsorted(np.cumsum(shares_D), share)) + 1
    return np.ascontiguousarray(directions_DD[: math.ceil(needed / AT_ONCE) * AT_ONCE], dtype=np.float32)


def sample(vectors_LD: Vectors, count: int) -> Vectors:
    """About so many of the vectors, spread evenly."""
    return vectors_LD[:: max(1, len(vectors_LD) // count)]
