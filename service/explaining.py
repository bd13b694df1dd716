"""Takes the score of a served label apart, for queries that ask why; others never come here.

Letters: N labels that were found, C candidates and nominees, K answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.bags import Bag
from service.decoders.base import Scorer
from service.decoders.parts import Parts
from service.reranking import Reranker
from service.search.topk import TopK


@dataclass(frozen=True)
class Explained:
    """What a label's score is made of; see `service.explanations`."""

    parts: Parts
    raw: float
    rank: int
    reranked: tuple[float, float] | None
    calibrated: tuple[float, float] | None


@dataclass(frozen=True)
class Explainer:
    """One query's way from the encoder to its answer.

    Attributes:
        bag: the query.
        outputs: the encoder's for it, as arrays.
        found: (1, N), by raw score, at least as many labels as were needed for its answer.
        scorer: of the bundle.
        reranker: of the bundle, if it has one.
        calibrated: whether probabilities are served.
    """

    bag: Bag
    outputs: Mapping[str, NDArray[np.float32]]
    found: TopK
    scorer: Scorer
    reranker: Reranker | None
    calibrated: bool

    def explain(self, ids_K: NDArray[np.int64], scores_K: NDArray[np.float32]) -> list[Explained]:
        """What the scores of some labels of the answer are made of, in order.

        Args:
            ids_K: labels.
            scores_K: theirs, as they are served.
        """
        order_K = np.argsort(ids_K)
        rows_K = ids_K[order_K]
        parts = dict(zip(rows_K.tolist(), self.scorer.explain(self.outputs, rows_K), strict=True))
        raw = dict(zip(rows_K.tolist(), self.scorer.score(self.outputs, rows_K).tolist(), strict=True))
        raw |= _by_label(self.found)
        ranked, shares = self.found, {}
        if self.reranker is not None:
            ranked, shares = self.reranker.rerank_all([self.bag], self.found), self._shares(self.reranker)
        ranks = {label: rank for rank, label in enumerate(ranked.ids_QK[0].tolist(), start=1)}
        keys = _by_label(ranked)
        return [
            Explained(
                parts[label],
                raw[label],
                ranks[label],
                None if self.reranker is None else shares.get(label, (keys[label], 0.0)),
                (keys[label], score) if self.calibrated else None,
            )
            for label, score in zip(ids_K.tolist(), scores_K.tolist(), strict=True)
        ]

    def _shares(self, reranker: Reranker) -> dict[int, tuple[float, float]]:
        """Of the method and of words, by label, for candidates and nominees."""
        (ids_C,), (own_C,), (words_C,) = reranker.shares([self.bag], self.found)
        return dict(zip(ids_C.tolist(), zip(own_C.tolist(), words_C.tolist(), strict=True), strict=True))


def _by_label(top: TopK) -> dict[int, Any]:
    return dict(zip(top.ids_QK[0].tolist(), top.scores_QK[0].tolist(), strict=True))
