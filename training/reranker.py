"""Word classifiers that order anew the labels which a model found.

A dense encoder generalises over words and forgets which exact word a rare label hangs on; a linear classifier over
words remembers, but knows nothing else. So an answer gets a second opinion: each label has a sparse linear classifier
(`training.svm`) over the terms of texts (`training.terms`), the classifiers nominate labels that the model did not
find, and what the answer is ordered by is a weighted mean of two probabilities, the model's own and the classifier's.

How the classifiers are trained: `training.rounds`.

Letters: N rows, K labels of an answer, C candidates (labels that the model found, then nominees), L
labels, V words or features, W terms.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy.sparse import csr_array

from training import metrics
from training.calibration import PlattMap
from training.products import products
from training.weighing import Weighing, unit_rows


class RerankerConfig(BaseModel):
    """Options of the re-ranking of a model's answers by word classifiers."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    candidates: int = Field(default=100, ge=2, le=10_000, description="labels of an answer that are ordered anew")
    cost: float = Field(default=0.5, gt=0, description="of a margin that is missed: higher fits training rows closer")
    nominees: int = Field(default=50, ge=0, le=10_000, description="labels that classifiers may add to them, at most")
    least_weight: float = Field(default=0.05, ge=0, description="magnitude below which a weight is dropped")
    rounds: int = Field(default=3, ge=1, description="trainings, each against what the one before confused")
    pairs: int = Field(
        default=500_000, ge=0, description="pairs of neighbouring tokens that are terms, the most frequent"
    )
    label_texts: float | None = Field(
        default=None,
        ge=0,
        allow_inf_nan=False,
        description="relevance of a label to its own text, a training row of the classifiers; 0: no such rows; "
        "None: 1, or 0 where training points that have some label's text mostly lack that label",
    )


class Mixture(BaseModel):
    """How two opinions become one: (1 - share) * own(score) + share * words(margin).

    Of a label that has no classifier, whose margin is NaN, the model says what words would.

    Attributes:
        own: the model's probability, of its raw score.
        words: the classifier's, of its margin.
        share: the classifier's part.
        candidates: labels of the model's answer that are ordered anew.
        nominees: labels that classifiers nominate, at most.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    own: PlattMap
    words: PlattMap
    share: float = Field(ge=0, le=1)
    candidates: int = Field(ge=1)
    nominees: int = Field(ge=0)

    def __call__(self, scores_NC: NDArray[np.floating], margins_NC: NDArray[np.floating]) -> NDArray[np.float64]:
        """The mean of both probabilities."""
        own_NC, words_NC = self.own(scores_NC.astype(np.float64)), self.words(margins_NC.astype(np.float64))
        return (1 - self.share) * own_NC + self.share * np.where(np.isnan(margins_NC), own_NC, words_NC)


@dataclass(frozen=True)
class Candidates:
    """What both opinions are asked about; padded with -1 and NaN.

    Attributes:
        labels_NC: the model's first labels, then nominees that are not among them.
        scores_NC: the model's raw scores; a nominee has that of the model's last one here, which is the most it can be.
        margins_NC: the classifiers'; NaN of labels that have none, which come behind those that have one.
    """

    labels_NC: NDArray[np.int64]
    scores_NC: NDArray[np.float32]
    margins_NC: NDArray[np.float32]

    @classmethod
    def of(
        cls,
        unit_NW: csr_array,
        weights: csr_array,
        labels_NC: NDArray[np.int64],
        scores_NC: NDArray[np.float32],
        nominees: int,
    ) -> Candidates:
        """The model's labels with margins, and what the classifiers nominate beside them.

        Args:
            unit_NW: rows as classifiers read them.
            weights: of the classifiers, float32 CSR (W, L).
            labels_NC: the model's first labels, padded with -1.
            scores_NC: their raw scores, padded with NaN.
            nominees: labels that may be nominated for a row, at most.
        """
        found, classified = labels_NC.shape[1], weights.shape[1]
        known_NC = np.where(labels_NC < classified, labels_NC, metrics.PADDING)
        all_NC, products_NC = products(unit_NW, weights, known_NC, nominees)
        all_NC[:, :found] = labels_NC
        margins_NC = np.where(all_NC < classified, products_NC - np.float32(1), np.float32(np.nan))
        lent_NC = np.where(all_NC[:, found:] == metrics.PADDING, np.nan, scores_NC[:, -1:]).astype(np.float32)
        return cls(all_NC, np.concatenate([scores_NC, lent_NC], axis=1), margins_NC)

    def ordered(self, mixture: Mixture) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Labels by what the mixture makes of them, ties by label row, and that."""
        mixed_NC = mixture(self.scores_NC, self.margins_NC).astype(np.float32)
        keys_NC = np.where(self.labels_NC == metrics.PADDING, np.inf, -mixed_NC)
        order_NC = np.lexsort((self.labels_NC, keys_NC), axis=1)
        return np.take_along_axis(self.labels_NC, order_NC, axis=1), np.take_along_axis(mixed_NC, order_NC, axis=1)


@dataclass(frozen=True)
class Reranker:
    """Word classifiers and how much they have to say.

    Attributes:
        weights: float32 CSR (W, L).
        weighing: what they read.
        mixture: of both opinions.
    """

    weights: csr_array
    weighing: Weighing
    mixture: Mixture

    def rerank(
        self, words: csr_array, labels_NK: NDArray[np.int64], scores_NK: NDArray[np.float32]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Order the first labels of every row anew, nominees among them; what lies beyond follows as it was.

        Args:
            words: what the rows are, float32 CSR (N, V): tokens in reading order as `training.tokens.read_words` gives
                them, or features.
            labels_NK: best first, padded with -1; at least the mixture's candidates, where there are so many labels.
            scores_NK: the model's, padded with NaN.

        Returns:
            As given, with scores that never rise in a row.
        """
        mixture, K = self.mixture, labels_NK.shape[1]
        head, beyond = slice(None, mixture.candidates), slice(mixture.candidates, None)
        rows = unit_rows(words, self.weighing)
        found = Candidates.of(rows, self.weights, labels_NK[:, head], scores_NK[:, head], mixture.nominees)
        labels_NC, mixed_NC = found.ordered(mixture)
        # No classifier speaks for what lies beyond.
        beyond_NK = (1 - mixture.share) * mixture.own(scores_NK[:, beyond].astype(np.float64))
        labels = np.concatenate([labels_NC, _without(labels_NK[:, beyond], labels_NC)], axis=1)
        scores = np.concatenate([mixed_NC, beyond_NK.astype(np.float32)], axis=1)
        order_NK = np.argsort(labels == metrics.PADDING, axis=1, kind="stable")[:, :K]
        labels_NK, scores_NK = (np.take_along_axis(values, order_NK, axis=1) for values in (labels, scores))
        scores_NK[labels_NK == metrics.PADDING] = np.nan
        return labels_NK, np.minimum.accumulate(scores_NK, axis=1)


def _without(labels_NK: NDArray[np.int64], known_NC: NDArray[np.int64]) -> NDArray[np.int64]:
    """The same with -1 in place of labels that are known in their row."""
    result_NK = labels_NK.copy()
    for row_K, known_C in zip(result_NK, known_NC, strict=True):
        row_K[np.isin(row_K, known_C)] = metrics.PADDING
    return result_NK
