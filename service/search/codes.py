"""Label vectors as integer codes, by which the candidates of an approximate search are scored.

A vector is a row of integers times a scale of its own: of 16 bits in the few directions that hold nearly all of the
vectors, or of 8 bits in all coordinates, each in a unit of its own. What all vectors share, their mean, is no part of
the codes: its product with a query is added to every score.

Letters: Q queries, D dimensions, W codes of a vector, L labels, C candidates, K answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.bundle import layout
from service.search.compiled import compiled
from service.search.products import inner_product, inner_products
from service.search.topk import TopK, select_in_blocks

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Codes:
    """Vectors 0 .. L-1; its methods may be called from several threads.

    Attributes:
        codes_LW: int8 or int16.
        scales_L: float32, above 0.
        directions_WD: float32 (W + 1, D): products of a query with these are what the codes are multiplied with; the
            last is the mean.
    """

    codes_LW: NDArray[Any]
    scales_L: Floats
    directions_WD: Floats

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Codes:
        """Those of a bundle's arrays."""
        return cls(arrays[layout.LABEL_CODES], arrays[layout.LABEL_SCALES], arrays[layout.LABEL_DIRECTIONS])

    @property
    def nbytes(self) -> int:
        """Of all arrays."""
        return self.codes_LW.nbytes + self.scales_L.nbytes + self.directions_WD.nbytes

    def score(self, queries_QD: Floats, rows_QC: Rows) -> Floats:
        """Inner products with C rows for each query; they are the same to the bit in every batch."""
        scores_QC = np.empty(rows_QC.shape, dtype=np.float32)
        _score(self.codes_LW, self.scales_L, inner_products(queries_QD, self.directions_WD), rows_QC, scores_QC)
        return scores_QC

    def search(self, queries_QD: Floats, k: int) -> TopK:
        """The min(k, L) vectors with the largest inner products, best first, ties by row; all are looked at."""

        def scores(low: int, high: int) -> Floats:
            return self.score(queries_QD, np.tile(np.arange(low, high), (len(queries_QD), 1)))

        return select_in_blocks(scores, len(queries_QD), len(self.codes_LW), k)


@compiled
def _score(codes_LW: NDArray[Any], scales_L: Floats, turned_QW: Floats, rows_QC: Rows, scores_QC: Floats) -> None:
    """Fill in the products."""
    W = codes_LW.shape[1]
    for query in range(len(rows_QC)):
        turned_W = turned_QW[query]
        for place in range(rows_QC.shape[1]):
            row = rows_QC[query, place]
            scores_QC[query, place] = scales_L[row] * inner_product(codes_LW[row], turned_W[:W]) + turned_W[W]
