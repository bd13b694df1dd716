"""Integer codes of label vectors, see `service.search.codes`: which kind errs less, and what they are.

Letters: L vectors, D dimensions, W codes of a vector, Q queries.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from model_export.axes import Vectors, directions_with, sample
from service.bundle import layout
from service.search.codes import Codes
from service.search.topk import ranges

# Of the squares of all vectors, what the directions of 16-bit codes may leave out; and of the dimensions, so many
# directions at most, or the codes would take too many bytes.
LEFT_OUT = 0.002
MOST_DIRECTIONS = 0.75
SAMPLE = 10_000
TINY = 1e-20
# A coordinate that varies by no more than this share of its largest number is the same for all: the rest is rounding.
CONSTANT = 1e-5
ENCODED_AT_ONCE = 50_000


@dataclass(frozen=True)
class _Kind:
    """How vectors are encoded: as integers of a type, by what is left of them without the mean.

    Attributes:
        dtype: int8 or int16.
        mean_D: of the vectors.
        own_WD: products of a vector with these are its codes.
        directions_WD: products of a query with these are what codes are multiplied with.
    """

    dtype: type[Any]
    mean_D: Vectors
    own_WD: Vectors
    directions_WD: Vectors

    def encode(self, vectors_LD: Vectors) -> Codes:
        """Codes of vectors."""
        L = len(vectors_LD)
        codes_LW, scales_L = np.empty((L, len(self.own_WD)), dtype=self.dtype), np.empty(L, dtype=np.float32)
        for low, high in ranges(L, ENCODED_AT_ONCE):
            turned = (vectors_LD[low:high] - self.mean_D) @ self.own_WD.T
            scales = np.abs(turned).max(axis=1) / np.iinfo(self.dtype).max
            scales_L[low:high] = np.where(scales > TINY, scales, 1)
            codes_LW[low:high] = np.rint(turned / scales_L[low:high, None])
        return Codes(codes_LW, scales_L, np.concatenate([self.directions_WD, self.mean_D[None]]))


def encode(vectors_LD: Vectors, queries_QD: Vectors) -> Codes:
    """The codes by which products with the queries err less: of 8 bits, or of 16 in fewer directions.

    Args:
        vectors_LD: L at least 1.
        queries_QD: as they will be asked.
    """
    some_LD = sample(vectors_LD, SAMPLE)

    def error(kind: _Kind) -> float:
        off_LD = decoded(kind.encode(some_LD)) - some_LD
        return float(np.square(queries_QD @ off_LD.T).mean())

    return min(_kinds(vectors_LD, some_LD), key=error).encode(vectors_LD)


def _kinds(vectors_LD: Vectors, some_LD: Vectors) -> Iterator[_Kind]:
    mean_D = some_LD.mean(axis=0)
    # In units of their own no coordinate is so much larger than others that these get few bits.
    units_D = some_LD.std(axis=0)
    varies_D = units_D > CONSTANT * np.abs(some_LD).max(axis=0)
    own_D = np.divide(1, units_D, out=np.zeros_like(units_D), where=varies_D)
    yield _Kind(np.int8, mean_D, np.diag(own_D), np.diag(np.where(varies_D, units_D, 0)))
    directions_WD = directions_with(1 - LEFT_OUT, vectors_LD)[: int(MOST_DIRECTIONS * len(mean_D))]
    if len(directions_WD) > 0:
        yield _Kind(np.int16, mean_D, directions_WD, directions_WD)


def decoded(codes: Codes) -> Vectors:
    """The vectors that the codes stand for."""
    turned_LW = codes.codes_LW * codes.scales_L[:, None]
    vectors_LD: Vectors = turned_LW @ codes.directions_WD[:-1] + codes.directions_WD[-1]
    return vectors_LD


def write_codes(folder: Path, codes: Codes) -> None:
    """Write the codes' files."""
    np.save(folder / layout.LABEL_CODES, codes.codes_LW)
    np.save(folder / layout.LABEL_SCALES, codes.scales_L)
    np.save(folder / layout.LABEL_DIRECTIONS, codes.directions_WD)
