"""DECLARE's distinct training rows: those nearest to queries, with their votes.

Letters: Q queries, C dimensions of the embedding, G distinct training rows, N nearest of them, P votes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from service.decoders.base import Search
from service.search.topk import TopK
from service.search.votes import Integers, Votes

Floats = NDArray[np.float32]
Counts = NDArray[np.int32]


@dataclass(frozen=True)
class Nearest:
    """The rows nearest to each query.

    Attributes:
        top: numbers and similarities, nearest first, ties by number, (Q, N); behind rows that stand for enough
            neighbours come any others.
        counts_QN: training rows that each stands for; None: one.
        votes: of these rows, and perhaps of others.
        places_QN: of each row in the votes.
    """

    top: TopK
    counts_QN: Counts | None
    votes: Votes
    places_QN: NDArray[np.int64]

    def votes_of(self, places: Integers) -> tuple[NDArray[np.int64], Integers, Floats]:
        """How many votes each of some rows has, and labels and values of all; by their places in (Q, N), flat."""
        return self.votes.of_rows(self.places_QN.ravel()[places])

    def alone(self) -> Nearest:
        """The same with votes of these rows alone, so that little has to be sent."""
        counts_M, labels_P, values_P = self.votes_of(np.arange(self.places_QN.size))
        starts_M = np.concatenate([[0], np.cumsum(counts_M)])
        votes = Votes(starts_M, labels_P, values_P, self.votes.label_count, alike=False)
        return Nearest(self.top, self.counts_QN, votes, np.arange(self.places_QN.size).reshape(self.places_QN.shape))


class Rows(Protocol):
    """Rows that are searched, wherever they are; may be called from several threads."""

    @property
    def label_count(self) -> int:
        """L."""
        ...

    def nearest(self, embeddings_QC: Floats, count: int) -> Nearest:
        """Rows that stand for so many neighbours of each query, or all rows."""
        ...


@dataclass(frozen=True)
class TrainingRows:
    """The rows of a bundle; see ``Rows``.

    Attributes:
        votes: of all rows.
        search: finds the nearest.
        counts_G: training rows that each stands for; None: one.
    """

    votes: Votes
    search: Search
    counts_G: Counts | None = None

    @property
    def label_count(self) -> int:
        """See ``Rows``."""
        return self.votes.label_count

    def nearest(self, embeddings_QC: Floats, count: int) -> Nearest:
        """See ``Rows``."""
        top = self.search(embeddings_QC, count)
        counts_QN = None if self.counts_G is None else self.counts_G[top.ids_QK]
        return Nearest(top, counts_QN, self.votes, top.ids_QK)


def merged(parts: Sequence[Nearest], firsts: Sequence[int], count: int) -> Nearest:
    """Join the nearest rows of disjoint parts of all rows into the nearest of all.

    Args:
        parts: of each, `Nearest.alone`.
        firsts: number of each part's row 0 among all.
        count: N, or more than there are.
    """
    pairs = list(zip(parts, firsts, strict=True))
    ids_QM = np.concatenate([part.top.ids_QK + first for part, first in pairs], axis=1)
    scores_QM = np.concatenate([part.top.scores_QK for part in parts], axis=1)
    order_QN = np.lexsort((ids_QM, -scores_QM), axis=1)[:, :count]
    taken = [np.take_along_axis(array_QM, order_QN, axis=1) for array_QM in (ids_QM, scores_QM)]
    offsets = np.cumsum([0, *(part.votes.row_count for part in parts[:-1])])
    places_QM = np.concatenate([part.places_QN + offset for part, offset in zip(parts, offsets, strict=True)], axis=1)
    return Nearest(
        top=TopK(*taken),
        counts_QN=_taken_counts(parts, order_QN),
        votes=_joined([part.votes for part in parts]),
        places_QN=np.take_along_axis(places_QM, order_QN, axis=1),
    )


def _taken_counts(parts: Sequence[Nearest], order_QN: NDArray[np.int64]) -> Counts | None:
    counts = [part.counts_QN for part in parts if part.counts_QN is not None]
    return np.take_along_axis(np.concatenate(counts, axis=1), order_QN, axis=1) if counts else None


def _joined(parts: Sequence[Votes]) -> Votes:
    """Votes of all parts' rows, one part after the other."""
    counts = np.concatenate([np.diff(part.starts_G) for part in parts])
    labels_P = np.concatenate([part.labels_P for part in parts])
    values_P = np.concatenate([part.values for part in parts])
    return Votes(np.concatenate([[0], np.cumsum(counts)]), labels_P, values_P, parts[0].label_count, alike=False)
