"""Word classifiers that add to the labels which a decoder found, and order them anew.

Training fits them and says why: see ``training/reranker.py``; a test holds this code to that.

Letters: Q queries, K labels of an answer, C candidates, M nominees, L labels, V words or features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.bags import Bag
from service.bundle import Bundle, layout
from service.bundle.manifest import PlattMap, RerankSection
from service.scoring import logistic
from service.search.compiled import compiled
from service.search.topk import TopK
from service.terms import Rows, Terms

TINY = 1e-12
NONE = -1  # stands where there is no nominee


class Reranker:
    """Classifiers by word, and how much they have to say; may be called from several threads."""

    def __init__(
        self,
        section: RerankSection,
        label_count: int,
        classified: int,
        offsets_V: NDArray[np.integer],
        labels: NDArray[Any],
        values: NDArray[Any],
        scales_V: NDArray[np.float32],
        idf_V: NDArray[np.float32] | None,
        terms: Terms | None,
    ) -> None:
        self._section = section
        self._label_count = label_count
        self._classified = classified
        self._offsets_V = offsets_V
        self._labels = labels
        # The compiler knows no half floats.
        self._values = values.astype(np.float32) if values.dtype == np.float16 else values
        self._scales_V = scales_V
        self._idf_V = idf_V
        self._terms = terms

    @classmethod
    def from_bundle(cls, bundle: Bundle) -> Reranker | None:
        """The bundle's classifiers; None where it has none."""
        section = bundle.manifest.rerank
        if section is None:
            return None
        arrays, idf_V, terms = bundle.arrays, bundle.arrays.get(layout.RERANK_IDF), None
        if section.terms:
            terms = Terms(
                arrays[layout.RERANK_PIECE_OFFSETS], arrays[layout.RERANK_PIECES], arrays[layout.RERANK_PAIRS]
            )
        elif bundle.manifest.input.kind == "text" and idf_V is not None:
            terms = Terms.of_tokens(len(idf_V))
        return cls(
            section,
            bundle.manifest.label_count,
            bundle.manifest.trained_count,
            arrays[layout.RERANK_OFFSETS],
            arrays[layout.RERANK_LABELS],
            arrays[layout.RERANK_VALUES],
            arrays[layout.RERANK_SCALES],
            idf_V,
            terms,
        )

    def wanted(self, k: int) -> int:
        """How many labels the decoder must be asked for, so that k can be served.

        At least all candidates, whatever k is: an answer is then the beginning of any longer one, and what else is in a
        batch changes nothing.
        """
        return max(k, self._section.candidates)

    def rerank(self, bags: Sequence[Bag], found: TopK) -> TopK:
        """As many labels as the decoder found, its first and the nominees ordered anew, with the mixture's scores.

        Raises:
            EngineFailed: the tokenizer gave a token that no classifier can know.
        """
        count = found.ids_QK.shape[1]
        if count <= self._section.candidates:  # nothing lies beyond, and what stands for no nominee comes last
            return self._mixed(bags, found).first(count)
        return self.rerank_all(bags, found).first(count)

    def rerank_all(self, bags: Sequence[Bag], found: TopK) -> TopK:
        """The same with the labels that nominees left no room for: all of one query, of several as many as each has.

        Beyond the candidates a score hangs on the label's own and the last before it: labels may be missing there.
        """
        beyond = slice(min(self._section.candidates, found.ids_QK.shape[1]), None)
        own_QK = self._own(found.scores_QK[:, beyond]).astype(np.float32)
        return _followed(self._mixed(bags, found), TopK(found.ids_QK[:, beyond], own_QK))

    def _mixed(self, bags: Sequence[Bag], found: TopK) -> TopK:
        """Candidates and nominees in the order of the mixture, and after them what stands for no nominee."""
        ids_QC, own_QC, words_QC = self.shares(bags, found)
        keys_QC = np.where(ids_QC == NONE, -np.inf, own_QC + words_QC).astype(np.float32)
        order_QC = np.lexsort((ids_QC, -keys_QC), axis=1)
        return TopK(np.take_along_axis(ids_QC, order_QC, axis=1), np.take_along_axis(keys_QC, order_QC, axis=1))

    def shares(
        self, bags: Sequence[Bag], found: TopK
    ) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
        """Candidates and nominees, padded with `NONE`, and the shares of the decoder and of words in their scores.

        All are (Q, C).
        """
        head = found.first(self._section.candidates)
        ids_QC, margins_QC = self._asked(bags, head.ids_QK)
        # Nominees have the last candidate's.
        lent = np.minimum(np.arange(ids_QC.shape[1]), head.ids_QK.shape[1] - 1)
        own_QC = _probabilities(self._section.own, head.scores_QK)[:, lent]
        words_QC = _probabilities(self._section.words, margins_QC)
        if (unknown_QC := ids_QC >= self._classified).any():
            # Of a label that no classifier knows, the method says what words would.
            words_QC = np.where(unknown_QC, own_QC, words_QC)
        return ids_QC, (1 - self._section.share) * own_QC, self._section.share * words_QC

    def _own(self, scores_QK: NDArray[np.float32]) -> NDArray[np.float64]:
        return (1 - self._section.share) * _probabilities(self._section.own, scores_QK)

    def _asked(self, bags: Sequence[Bag], ids_QK: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Labels that a decoder found and nominees beside them, padded with `NONE`, and their margins."""
        rows = self._weighted(bags)
        nominees_QM = np.full((len(bags), self._section.nominees), NONE, dtype=np.int64)
        ids_QC = np.concatenate([ids_QK, nominees_QM], axis=1)
        products_QC = np.zeros(ids_QC.shape, dtype=np.float32)
        sums_L = np.zeros(self._label_count, dtype=np.float32)
        classifiers = self._offsets_V, self._labels, self._values, self._scales_V
        _ask(rows.starts, rows.ids, rows.values, *classifiers, ids_QK.shape[1], sums_L, ids_QC, products_QC)
        return ids_QC, products_QC - np.float32(1)

    def _weighted(self, bags: Sequence[Bag]) -> Rows:
        """Rows of unit length: of texts (1 + ln count) * idf of their terms, of features value * idf."""
        if self._terms is None:
            starts = np.cumsum([0, *(bag.ids.size for bag in bags)], dtype=np.int64)
            rows = Rows(starts, np.concatenate([bag.ids for bag in bags]), np.concatenate([bag.values for bag in bags]))
        else:
            rows = self._terms.count(bags)
            rows = replace(rows, values=1 + np.log(rows.values))
        if self._idf_V is not None:
            rows = replace(rows, values=rows.values * self._idf_V[rows.ids])
        lengths = np.diff(rows.starts)
        squares_Q = np.bincount(np.repeat(np.arange(len(bags)), lengths), np.square(rows.values), len(bags))
        units = rows.values / np.repeat(np.sqrt(np.maximum(TINY, squares_Q)), lengths)
        return replace(rows, values=units.astype(np.float32))


def _followed(head: TopK, beyond: TopK) -> TopK:
    """Labels of the head, padding left out, then those beyond that are not among them: as many as were found."""
    count = beyond.ids_QK.shape[1]
    ids_QK = np.empty((len(head.ids_QK), head.ids_QK.shape[1] + count), dtype=np.int64)
    scores_QK = np.empty(ids_QK.shape, dtype=np.float32)
    K = ids_QK.shape[1]
    for query, ids_C in enumerate(head.ids_QK):
        held, left = ids_C != NONE, ~np.isin(beyond.ids_QK[query], ids_C)
        K = min(K, int(held.sum() + left.sum()))
        row = slice(0, int(held.sum() + left.sum()))
        ids_QK[query, row] = np.concatenate([ids_C[held], beyond.ids_QK[query][left]])
        scores_QK[query, row] = np.concatenate([head.scores_QK[query][held], beyond.scores_QK[query][left]])
    return TopK(ids_QK[:, :K], np.minimum.accumulate(scores_QK[:, :K], axis=1))


def _probabilities(platt: PlattMap, scores: NDArray[np.floating]) -> NDArray[np.float64]:
    return logistic(scores.astype(np.float64), platt.slope, platt.intercept)


@compiled
def _ask(
    starts: NDArray[np.int64],
    ids: NDArray[np.int64],
    weights: NDArray[np.float32],
    offsets_V: NDArray[np.integer],
    labels: NDArray[Any],
    values: NDArray[Any],
    scales_V: NDArray[np.float32],
    found: int,
    sums_L: NDArray[np.float32],
    ids_QC: NDArray[np.int64],
    products_QC: NDArray[np.float32],
) -> None:
    """Products of the labels that were found, then the labels with the largest positive ones of all others.

    ``sums_L`` is 0 before and after; of equal nominees the first label row comes first.
    """
    none = np.float32(0)
    for query in range(len(ids_QC)):
        for token in range(starts[query], starts[query + 1]):
            word = ids[token]
            weight = weights[token] * scales_V[word]
            for place in range(offsets_V[word], offsets_V[word + 1]):
                sums_L[labels[place]] += weight * values[place]
        ids_C, products_C = ids_QC[query], products_QC[query]
        for rank in range(found):
            if ids_C[rank] < len(sums_L):  # others were added since
                products_C[rank] = sums_L[ids_C[rank]]
                sums_L[ids_C[rank]] = none
        last = len(ids_C) - 1
        for label in range(len(sums_L) if last >= found else 0):
            product = sums_L[label]
            if product <= products_C[last]:
                continue
            rank = last
            while rank > found and products_C[rank - 1] < product:
                products_C[rank], ids_C[rank] = products_C[rank - 1], ids_C[rank - 1]
                rank -= 1
            products_C[rank], ids_C[rank] = product, label
        sums_L[:] = none
