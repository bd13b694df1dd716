"""Integer codes of label vectors, see `service.codes`: which kind errs less, and what they are.

Letters: L vectors, D dimensions, W codes of a vector, Q queries.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.bundle import layout
from service.codes import Codes
from service.topk import ranges

Vectors = NDArray[np.float32]

# Of the squares of all vectors, what the directions of 16-bit codes may leave out; and of the dimensions, so many
# directions at most, or the codes would take too many bytes.
LEFT_OUT = 0.002
MOST_DIRECTIONS = 0.75
# Kernels read so many numbers at a time.
AT_ONCE = 16
SAMPLE = 10_000
ENCODED_AT_ONCE = 50_000


def axes(vectors_LD: Vectors) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """All D directions, those with most of the vectors' squares first, (D, D) by row; and the share of each, (D,).

    They are not centred, as inner products are not.
    """
    some_LD = sample(vectors_LD, 10 * SAMPLE)
    squares_D, directions_DD = np.linalg.eigh((some_LD.T @ some_LD).astype(np.float64))
    shares_D = squares_D[::-1] / max(squares_D.sum(), np.finfo(np.float64).tiny)
    return directions_DD[:, ::-1].T, shares_D


def sample(vectors_LD: Vectors, count: int) -> Vectors:
    """About so many of the vectors, spread evenly."""
    return vectors_LD[:: max(1, len(vectors_LD) // count)]


def encode(vectors_LD: Vectors, queries_QD: Vectors) -> Codes:
    """The codes by which products with the queries err less: of 8 bits, or of 16 in fewer directions.

    Args:
        vectors_LD: L at least 1.
        queries_QD: as they will be asked.
    """
    some_LD = sample(vectors_LD, SAMPLE)
    directions_DD, shares_D = axes(vectors_LD)
    needed = int(np.searchsorted(np.cumsum(shares_D), 1 - LEFT_OUT)) + 1
    width = min(-(-needed // AT_ONCE) * AT_ONCE, int(MOST_DIRECTIONS * len(shares_D)))
    kinds: list[Vectors | None] = [None]
    if width > 0:
        kinds.append(np.ascontiguousarray(directions_DD[:width], dtype=np.float32))
    least = min(kinds, key=lambda directions_WD: _error(_encoded(some_LD, directions_WD), some_LD, queries_QD))
    return _encoded(vectors_LD, least)


def decoded(codes: Codes) -> Vectors:
    """The vectors that the codes stand for."""
    turned_LW: Vectors = codes.codes_LW * codes.scales_L[:, None]
    return turned_LW if codes.directions_WD is None else turned_LW @ codes.directions_WD


def write_codes(folder: Path, codes: Codes) -> None:
    """Write the codes' files."""
    np.save(folder / layout.LABEL_CODES, codes.codes_LW)
    np.save(folder / layout.LABEL_SCALES, codes.scales_L)
    if codes.directions_WD is not None:
        np.save(folder / layout.LABEL_DIRECTIONS, codes.directions_WD)


def _encoded(vectors_LD: Vectors, directions_WD: Vectors | None) -> Codes:
    L, D = vectors_LD.shape
    dtype: type[Any] = np.int8 if directions_WD is None else np.int16
    codes_LW = np.empty((L, D if directions_WD is None else len(directions_WD)), dtype=dtype)
    scales_L = np.empty(L, dtype=np.float32)
    for low, high in ranges(L, ENCODED_AT_ONCE):
        turned = vectors_LD[low:high] if directions_WD is None else vectors_LD[low:high] @ directions_WD.T
        scales = np.abs(turned).max(axis=1) / np.iinfo(dtype).max
        scales_L[low:high] = np.where(scales > 0, scales, 1)
        codes_LW[low:high] = np.rint(turned / scales_L[low:high, None])
    return Codes(codes_LW, scales_L, directions_WD)


def _error(codes: Codes, vectors_LD: Vectors, queries_QD: Vectors) -> float:
    """Mean square of what products err by."""
    return float(np.square(queries_QD @ (decoded(codes) - vectors_LD).T).mean())
