"""DECLARE: the training rows nearest to the query's embedding vote for their labels.

With Z = Y V_c, the similarities of all rows are Z z = Y (V_c z): label factors and the votes decide them, and Z itself
is needed only where it is smaller (recovery "rows", an exact search of Z). Training rows with the same labels are
stored once, with their number.

Letters: Q queries, C dimensions of the embedding, G distinct training rows, N nearest of them, L labels, V votes of a
batch, K answers.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from service.bundle import Bundle, layout
from service.bundle.manifest import DeclareSection
from service.bundle.row_texts import RowTexts
from service.decoders.base import Scorer, Search
from service.decoders.factors import FactorSearch
from service.decoders.parts import NeighbourPart, NeighbourParts
from service.decoders.rows import Nearest, Rows, TrainingRows
from service.search.exact import ExactSearch
from service.search.topk import TopK, select_from
from service.search.votes import Votes

OUTPUT = "embedding"

Floats = NDArray[np.float32]


class DeclareDecoder:
    """Neighbour search and vote; scores are sums of weight times vote, labels without votes score 0.

    Args:
        section: sizes, and what a vote weighs.
        rows: that vote.
        texts: of the rows; None where the bundle carries none.

    Attributes:
        rows: see above.
    """

    def __init__(self, section: DeclareSection, rows: Rows, texts: RowTexts | None = None) -> None:
        self.required_outputs = {OUTPUT: (section.rank,)}
        # The nearest rows tell the scores of all labels at once: there is nothing to gain from asking for more labels.
        self.exact = True
        self.cheap_labels, self.most_fetched = rows.label_count, 0
        self.rows = rows
        self._neighbours = section.neighbours
        self._temperature = section.temperature
        self._texts = texts

    @property
    def scorer(self) -> Scorer:
        """See ``Decoder``."""
        return self

    @classmethod
    def from_bundle(cls, bundle: Bundle, *, threads: int) -> DeclareDecoder:
        """See ``Decoder``."""
        section = bundle.manifest.method
        assert isinstance(section, DeclareSection)
        votes, counts_G = _votes(bundle, section), bundle.arrays.get(layout.DECLARE_VOTES_COUNTS)
        if section.recovery == "factors":
            factors_LC, lengths_G = bundle.arrays[layout.DECLARE_FACTORS], bundle.arrays.get(layout.DECLARE_LENGTHS)
            search: Search = FactorSearch(votes, factors_LC, lengths_G, counts_G)
        else:
            graph = bundle.file(layout.DECLARE_ROW_SEARCH)
            search = ExactSearch.open(graph, dimension=section.rank, size=votes.row_count, threads=threads).search
        return cls(section, TrainingRows(votes, search, counts_G), bundle.row_texts)

    def decode(self, outputs: Mapping[str, Floats], k: int) -> TopK:
        """See ``Decoder``."""
        k = min(k, self.rows.label_count)
        # The first k labels are the answers where fewer than k labels have votes.
        queries, labels, scores = self._votes_and_blanks(outputs, np.arange(k))
        return select_from(queries, labels, scores, len(outputs[OUTPUT]), k)

    def score(self, outputs: Mapping[str, Floats], rows_N: NDArray[np.int64]) -> Floats:
        """See ``Scorer``."""
        _, labels, scores = self._votes_and_blanks(outputs, rows_N)
        scores_N: Floats = scores[np.searchsorted(labels, rows_N)]
        return scores_N

    def explain(self, outputs: Mapping[str, Floats], rows_N: NDArray[np.int64]) -> list[NeighbourParts]:
        """See ``Scorer``."""
        nearest = self.rows.nearest(outputs[OUTPUT], self._neighbours)
        (ids_N,), (similarities_N,) = nearest.top.ids_QK, nearest.top.scores_QK
        (weights_N,), counts_QN = self._weights(nearest), nearest.counts_QN
        counted_N = np.ones_like(ids_N) if counts_QN is None else self._counted(counts_QN)[0]
        parts: dict[int, list[NeighbourPart]] = {label: [] for label in rows_N.tolist()}
        for place in np.flatnonzero(weights_N).tolist():
            row, similarity, weight = int(ids_N[place]), float(similarities_N[place]), float(weights_N[place])
            _, labels, votes = nearest.votes_of(np.array([place]))
            asked = [pair for pair in zip(labels.tolist(), votes.tolist(), strict=True) if pair[0] in parts]
            text = self._texts[row] if asked and self._texts is not None else None
            for label, vote in asked:
                counted = int(counted_N[place])
                parts[label].append(NeighbourPart(row, text, counted, similarity, weight, vote, weight * vote))
        return [NeighbourParts(tuple(parts[label])) for label in rows_N.tolist()]

    def _counted(self, counts_QN: NDArray[np.int32]) -> NDArray[np.int32]:
        """Training rows that each of the nearest stands for, until all neighbours are counted."""
        counted_QN: NDArray[np.int32] = np.clip(
            self._neighbours - np.cumsum(counts_QN, axis=1) + counts_QN, 0, counts_QN
        )
        return counted_QN

    def _weights(self, nearest: Nearest) -> Floats:
        """What each of the nearest rows' votes weigh, (Q, N); a row on the far side would take votes away: it has none.

        Rows count as often as they occur in the training data, until all neighbours are counted.
        """
        similarities_QN = nearest.top.scores_QK
        if self._temperature is None:
            weights_QN = np.maximum(similarities_QN, np.float32(0))
        else:
            decay_QN = np.exp((similarities_QN - similarities_QN[:, :1]) / np.float32(self._temperature))
            weights_QN = np.where(similarities_QN > 0, decay_QN, np.float32(0))
        if nearest.counts_QN is not None:
            weights_QN = weights_QN * self._counted(nearest.counts_QN).astype(np.float32)
        if self._temperature is None:
            return weights_QN
        totals_Q1: Floats = weights_QN.sum(axis=1, keepdims=True)
        totals_Q1[totals_Q1 == 0] = 1
        shares_QN: Floats = np.divide(weights_QN, totals_Q1)
        return shares_QN

    def _votes_and_blanks(
        self, outputs: Mapping[str, Floats], blanks_N: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
        """Queries and labels, both rising, and scores: of all labels that have votes, and of blanks, which need not."""
        nearest = self.rows.nearest(outputs[OUTPUT], self._neighbours)
        weights_QN = self._weights(nearest)
        (Q, N), L = weights_QN.shape, self.rows.label_count
        voting = np.flatnonzero(weights_QN)
        counts, labels_V, values_V = nearest.votes_of(voting)
        keys_V = np.repeat(voting // N, counts) * L + labels_V
        votes_V = values_V * np.repeat(weights_QN.ravel()[voting], counts)
        blank_keys = (np.arange(Q)[:, None] * L + blanks_N).ravel()
        keys, scores = _sum_by_key(
            np.concatenate([keys_V, blank_keys]), np.concatenate([votes_V, np.zeros(len(blank_keys), dtype=np.float32)])
        )
        return *np.divmod(keys, L), scores


def _votes(bundle: Bundle, section: DeclareSection) -> Votes:
    names = (layout.DECLARE_VOTES_INDPTR, layout.DECLARE_VOTES_INDICES, layout.DECLARE_VOTES_DATA)
    starts_G, labels_P, values = (bundle.arrays[name] for name in names)
    return Votes(starts_G, labels_P, values, bundle.manifest.label_count, bool(section.alike))


def _sum_by_key(keys: NDArray[np.int64], values: Floats) -> tuple[NDArray[np.int64], Floats]:
    """Distinct keys, ascending, and the sum of each one's values."""
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    return keys[starts], np.add.reduceat(values[order], starts)
