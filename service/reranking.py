"""Word classifiers that order anew the labels which a decoder found.

Training fits them and says why: see ``training/reranker.py``; a test holds this code to that.

Letters: Q queries, C candidates, L labels, V words or features, T ids of a bag.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.bags import Bag
from service.bundle import Bundle, layout
from service.bundle.manifest import PlattMap, RerankSection
from service.compiled import compiled
from service.errors import EngineFailed
from service.scoring import logistic
from service.topk import TopK

TINY = 1e-12


class Reranker:
    """Classifiers by word, and how much they have to say; may be called from several threads."""

    def __init__(
        self,
        section: RerankSection,
        label_count: int,
        offsets_V: NDArray[np.int64],
        labels: NDArray[Any],
        values: NDArray[Any],
        scales_V: NDArray[np.float32],
        idf_V: NDArray[np.float32] | None,
    ) -> None:
        self._section = section
        self._label_count = label_count
        self._offsets_V = offsets_V
        self._labels = labels
        # The compiler knows no half floats.
        self._values = values.astype(np.float32) if values.dtype == np.float16 else values
        self._scales_V = scales_V
        self._idf_V = idf_V

    @classmethod
    def from_bundle(cls, bundle: Bundle) -> Reranker | None:
        """The bundle's classifiers; None where it has none."""
        section = bundle.manifest.rerank
        if section is None:
            return None
        arrays = bundle.arrays
        return cls(
            section,
            bundle.manifest.label_count,
            arrays[layout.RERANK_OFFSETS],
            arrays[layout.RERANK_LABELS],
            arrays[layout.RERANK_VALUES],
            arrays[layout.RERANK_SCALES],
            arrays.get(layout.RERANK_IDF),
        )

    def wanted(self, k: int) -> int:
        """How many labels the decoder must be asked for, so that k can be served.

        At least all candidates, whatever k is: an answer is then the beginning of any longer one, and what else is in a
        batch changes nothing.
        """
        return max(k, self._section.candidates)

    def rerank(self, bags: Sequence[Bag], found: TopK) -> TopK:
        """The decoder's labels, the first C of each query ordered anew, with the mixture's scores.

        Raises:
            EngineFailed: the tokenizer gave a token that no classifier can know.
        """
        section = self._section
        ids_QC, own_QK = found.ids_QK[:, : section.candidates], found.scores_QK.astype(np.float64)
        margins_QC = self._margins(bags, ids_QC)
        mixed_QK = (1 - section.share) * _probabilities(section.own, own_QK)
        mixed_QK[:, : section.candidates] += section.share * _probabilities(section.words, margins_QC)
        mixed_QK = mixed_QK.astype(np.float32)
        order_QC = np.lexsort((ids_QC, -mixed_QK[:, : section.candidates]), axis=1)
        beyond = np.arange(order_QC.shape[1], mixed_QK.shape[1])
        order_QK = np.concatenate([order_QC, np.tile(beyond, (len(order_QC), 1))], axis=1)
        scores_QK = np.minimum.accumulate(np.take_along_axis(mixed_QK, order_QK, axis=1), axis=1)
        return TopK(np.take_along_axis(found.ids_QK, order_QK, axis=1), scores_QK)

    def _margins(self, bags: Sequence[Bag], ids_QC: NDArray[np.int64]) -> NDArray[np.float64]:
        weighted = [self._weighted(bag) for bag in bags]
        starts = np.cumsum([0, *(len(ids) for ids, _ in weighted)], dtype=np.int64)
        ids = np.fromiter(chain.from_iterable(ids for ids, _ in weighted), dtype=np.int64, count=int(starts[-1]))
        weights = np.concatenate([weights for _, weights in weighted])
        margins_QC = np.empty(ids_QC.shape, dtype=np.float32)
        sums_L = np.zeros(self._label_count, dtype=np.float32)
        classifiers = self._offsets_V, self._labels, self._values, self._scales_V
        _add_up(starts, ids, weights, *classifiers, ids_QC, sums_L, margins_QC)
        return margins_QC.astype(np.float64)

    def _weighted(self, bag: Bag) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Distinct ids with weights of unit length: TF-IDF, (1 + ln count) * idf, of texts, or features as they are."""
        ids, values = bag.ids, bag.values
        if self._idf_V is not None:
            ids, places = np.unique(ids, return_inverse=True)  # a sequence repeats its ids
            words = len(self._idf_V)
            if len(ids) and ids[-1] >= words:
                raise EngineFailed(f"expected token ids below {words}, as {layout.RERANK_IDF} has, found {ids[-1]}")
            values = (1 + np.log(np.bincount(places, bag.values, len(ids)))) * self._idf_V[ids]
        values = values / np.sqrt(max(TINY, float(np.square(values).sum())))
        return ids, values.astype(np.float32)


def _probabilities(platt: PlattMap, scores: NDArray[np.float64]) -> NDArray[np.float64]:
    return logistic(scores, platt.slope, platt.intercept)


@compiled
def _add_up(
    starts: NDArray[np.int64],
    ids: NDArray[np.int64],
    weights: NDArray[np.float32],
    offsets_V: NDArray[np.int64],
    labels: NDArray[Any],
    values: NDArray[Any],
    scales_V: NDArray[np.float32],
    ids_QC: NDArray[np.int64],
    sums_L: NDArray[np.float32],
    margins_QC: NDArray[np.float32],
) -> None:
    """Margins of the candidates; ``sums_L`` is 0 before and after."""
    for query in range(len(ids_QC)):
        for token in range(starts[query], starts[query + 1]):
            word = ids[token]
            weight = weights[token] * scales_V[word]
            for place in range(offsets_V[word], offsets_V[word + 1]):
                sums_L[labels[place]] += weight * values[place]
        for rank in range(ids_QC.shape[1]):
            margins_QC[query, rank] = sums_L[ids_QC[query, rank]] - np.float32(1)
        for token in range(starts[query], starts[query + 1]):
            word = ids[token]
            for place in range(offsets_V[word], offsets_V[word + 1]):
                sums_L[labels[place]] = np.float32(0)
