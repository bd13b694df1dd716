"""The votes of DECLARE's training rows: sparse, and one number a row where all votes of a row are alike.

They are wherever the data state no relevances. Then only labels are kept of each vote, in the narrowest type.

Letters: Q queries, G rows, L labels, P votes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from service.bundle import layout
from service.search.compiled import compiled, inlined

Floats = NDArray[np.float32]
Integers = NDArray[Any]


@dataclass(frozen=True)
class Votes:
    """Votes by row.

    Attributes:
        starts_G: where each row's votes begin, and the end: (G + 1,).
        labels_P: of the votes, ascending within a row.
        values: float32 above 0: of each vote (P,), or of all votes of a row (G,).
        label_count: L.
        alike: whether there is a value for each row.
    """

    starts_G: Integers
    labels_P: Integers
    values: Floats
    label_count: int
    alike: bool

    @classmethod
    def from_csr(cls, votes_GL: csr_array) -> Votes:
        """What a matrix holds, its indices sorted, in as few bytes as may be."""
        labels_P = votes_GL.indices.astype(layout.label_dtype(votes_GL.shape[1]))
        values_P = votes_GL.data.astype(np.float32)
        counts_G = np.diff(votes_GL.indptr)
        values_G = np.ones(len(counts_G), dtype=np.float32)
        values_G[counts_G > 0] = values_P[votes_GL.indptr[:-1][counts_G > 0]]
        alike = np.array_equal(np.repeat(values_G, counts_G), values_P)
        return cls(votes_GL.indptr, labels_P, values_G if alike else values_P, votes_GL.shape[1], alike)

    @property
    def row_count(self) -> int:
        """G."""
        return len(self.starts_G) - 1

    def largest_G(self) -> Floats:
        """The largest vote of each row; of rows without votes, some number."""
        if self.alike:
            return self.values
        largest_G = np.zeros(self.row_count, dtype=np.float32)
        voting_G = np.diff(self.starts_G) > 0
        largest_G[voting_G] = np.maximum.reduceat(self.values, self.starts_G[:-1][voting_G])
        return largest_G

    def of_rows(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], Integers, Floats]:
        """How many votes each of some rows has, and the labels and values of all, row after row."""
        starts = self.starts_G[rows].astype(np.int64)
        counts = self.starts_G[rows + 1] - starts
        places = np.repeat(starts - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
        values = np.repeat(self.values[rows], counts) if self.alike else self.values[places]
        return counts, self.labels_P[places], values

    def products(self, scores_LQ: Floats) -> Floats:
        """The product of the matrix with columns of scores, float32 (G, Q): each row's votes times their labels'."""
        products_GQ = np.empty((self.row_count, scores_LQ.shape[1]), dtype=np.float32)
        parts = self.starts_G, self.labels_P, self.values, self.alike
        if scores_LQ.shape[1] == 1:
            _fill_column(*parts, np.ascontiguousarray(scores_LQ[:, 0]), products_GQ[:, 0])
        else:
            _fill_columns(*parts, np.ascontiguousarray(scores_LQ), products_GQ)
        return products_GQ


@inlined
def row_product(starts_G: Integers, labels_P: Integers, values: Floats, alike: bool, scores_L: Floats, row: Any) -> Any:
    """Of one row of votes with the labels' scores, in the order of its votes."""
    total = np.float32(0)
    if alike:
        for vote in range(starts_G[row], starts_G[row + 1]):
            total += scores_L[labels_P[vote]]
        return total * values[row]
    for vote in range(starts_G[row], starts_G[row + 1]):
        total += values[vote] * scores_L[labels_P[vote]]
    return total


@compiled
def _fill_column(
    starts_G: Integers, labels_P: Integers, values: Floats, alike: bool, scores_L: Floats, products_G: Floats
) -> None:
    for row in range(len(products_G)):
        products_G[row] = row_product(starts_G, labels_P, values, alike, scores_L, row)


@compiled
def _fill_columns(
    starts_G: Integers, labels_P: Integers, values: Floats, alike: bool, scores_LQ: Floats, products_GQ: Floats
) -> None:
    """Each as `row_product`, to the bit."""
    totals_Q = np.empty(scores_LQ.shape[1], dtype=np.float32)  # no part of another array: it can stay in registers
    for row in range(len(products_GQ)):
        totals_Q[:] = 0
        for vote in range(starts_G[row], starts_G[row + 1]):
            scores_Q = scores_LQ[labels_P[vote]]
            if alike:
                for query in range(len(totals_Q)):
                    totals_Q[query] += scores_Q[query]
            else:
                for query in range(len(totals_Q)):
                    totals_Q[query] += values[vote] * scores_Q[query]
        value = values[row] if alike else np.float32(1)
        for query in range(len(totals_Q)):
            products_GQ[row, query] = totals_Q[query] * value
