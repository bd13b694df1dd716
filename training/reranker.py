"""Word classifiers that order anew the labels which a model found.

A dense encoder generalises over words and forgets which exact word a rare label hangs on; a linear classifier over
words remembers, but knows nothing else. So the first labels of an answer get a second opinion: each label has a sparse
linear classifier (`training.svm`), and what the answer is ordered by is a weighted mean of two probabilities, the
model's own and the classifier's.

A classifier is only ever asked about labels that the model found, so these are what it learns to tell apart: its
negatives are the training rows whose first labels it is among. That is what PECOS calls matcher-aware negatives (Zhang
et al., "Fast Multi-Resolution Transformer Fine-tuning for Extreme Multi-label Text Classification", NeurIPS 2021), and
a few seconds' work, where all rows would take minutes for the same result.

Letters: N rows, C candidates, L labels, V words or features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy.sparse import csr_array

from training import metrics
from training.calibration import PlattMap, fit_platt
from training.data.dataset import Dataset
from training.svm import fit_classifiers
from training.vocabulary import inverse_document_frequency

# Rows whose first labels are looked at for negatives: more would take as long as training does.
MINED_ROWS = 50_000
SHARES = tuple(share / 10 for share in range(10))
CHOSEN_AT = 5
ROWS_AT_ONCE = 256

# Of a matrix of inputs the best k labels of every row and their raw scores, padded with -1 and NaN.
Rank = Callable[[csr_array, int], tuple[NDArray[np.int64], NDArray[np.float32]]]


class RerankerConfig(BaseModel):
    """Options of the re-ranking of a model's answers by word classifiers."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    candidates: int = Field(default=100, ge=2, le=10_000, description="labels of an answer that are ordered anew")
    cost: float = Field(default=0.5, gt=0, description="of a margin that is missed: higher fits training rows closer")
    least_weight: float = Field(default=0.02, ge=0, description="magnitude below which a weight is dropped")


class Mixture(BaseModel):
    """How two opinions become one: (1 - share) * own(score) + share * words(margin).

    Attributes:
        own: the model's probability, of its raw score.
        words: the classifier's, of its margin.
        share: the classifier's part.
        candidates: labels of an answer, C.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    own: PlattMap
    words: PlattMap
    share: float = Field(ge=0, le=1)
    candidates: int = Field(ge=1)

    def __call__(self, scores_NC: NDArray[np.floating], margins_NC: NDArray[np.floating]) -> NDArray[np.float64]:
        """The mean of both probabilities."""
        own_NC, words_NC = self.own(scores_NC.astype(np.float64)), self.words(margins_NC.astype(np.float64))
        return (1 - self.share) * own_NC + self.share * words_NC


@dataclass(frozen=True)
class Reranker:
    """Word classifiers and how much they have to say.

    Attributes:
        weights: float32 CSR (V, L).
        idf: float32 (V,) for texts; None for features, which keep their values.
        mixture: of both opinions.
    """

    weights: csr_array
    idf: NDArray[np.float32] | None
    mixture: Mixture

    def rerank(
        self, inputs: csr_array, labels_NK: NDArray[np.int64], scores_NK: NDArray[np.float32]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Order the first C labels of every row anew; what lies beyond them follows as it was.

        Args:
            inputs: what the rows are, float32 CSR (N, V), as the model reads them.
            labels_NK: best first, padded with -1.
            scores_NK: the model's, padded with NaN.

        Returns:
            As given, ties by label row, with scores that never rise in a row.
        """
        candidates_NC = labels_NK[:, : self.mixture.candidates]
        margins_NC = _margins(_unit_rows(inputs, self.idf), self.weights, candidates_NC)
        return _ordered(self.mixture, labels_NK, scores_NK, margins_NC)


def fit_reranker(rank: Rank, dataset: Dataset, config: RerankerConfig, seed: int) -> Reranker:
    """Train the classifiers on the training rows, and choose their share on the validation rows.

    Args:
        rank: the trained model.
        dataset: what it was trained on.
        config: options.
        seed: of the rows that negatives come from, and of the order of steps.
    """
    count = min(config.candidates, dataset.label_count)
    train = dataset.train
    mined = np.sort(np.random.default_rng(seed).permutation(len(train))[:MINED_ROWS])
    labels_NC, _ = rank(train.inputs[mined], count)
    rows = np.repeat(mined, count)
    negatives = csr_array((np.ones(rows.size, dtype=np.bool_), (rows, labels_NC.ravel())), shape=train.targets.shape)
    idf = None if dataset.tokenizer is None else inverse_document_frequency(train.inputs)
    weights = fit_classifiers(
        _unit_rows(train.inputs, idf),
        train.targets,
        negatives,
        cost=config.cost,
        least_weight=config.least_weight,
        seed=seed,
    )
    held = dataset.validation
    labels_NC, scores_NC = rank(held.inputs, count)
    margins_NC = _margins(_unit_rows(held.inputs, idf), weights, labels_NC)
    return Reranker(weights, idf, fit_mixture(labels_NC, scores_NC, margins_NC, held.targets))


def fit_mixture(
    labels_NC: NDArray[np.int64],
    scores_NC: NDArray[np.float32],
    margins_NC: NDArray[np.float32],
    targets_NL: csr_array,
) -> Mixture:
    """Fit both probabilities, and choose the share with the best nDCG@5, of equal ones the least."""
    hits_NC = metrics.hits(labels_NC, targets_NL)
    own = fit_platt(scores_NC.ravel().astype(np.float64), hits_NC.ravel())
    words = fit_platt(margins_NC.ravel().astype(np.float64), hits_NC.ravel())
    mixtures = [Mixture(own=own, words=words, share=share, candidates=labels_NC.shape[1]) for share in SHARES]
    unweighted_L = np.ones(targets_NL.shape[1])

    k = min(CHOSEN_AT, labels_NC.shape[1])

    def gain(mixture: Mixture) -> float:
        ranked_NC, _ = _ordered(mixture, labels_NC, scores_NC, margins_NC)
        return metrics.report(ranked_NC[:, :k], targets_NL, unweighted_L, [k])[f"nDCG@{k}"]

    return max(mixtures, key=gain)


def _ordered(
    mixture: Mixture, labels_NK: NDArray[np.int64], scores_NK: NDArray[np.float32], margins_NC: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The first C labels by what the mixture makes of them; no classifier speaks for those beyond."""
    count = margins_NC.shape[1]
    labels_NC = labels_NK[:, :count]
    mixed_NC = mixture(scores_NK[:, :count], margins_NC).astype(np.float32)
    order_NC = np.lexsort((labels_NC, np.where(labels_NC == metrics.PADDING, np.inf, -mixed_NC)), axis=1)
    beyond_NK = (1 - mixture.share) * mixture.own(scores_NK[:, count:].astype(np.float64))
    ordered_NK = np.concatenate([np.take_along_axis(labels_NC, order_NC, axis=1), labels_NK[:, count:]], axis=1)
    mixed_NK = np.concatenate([np.take_along_axis(mixed_NC, order_NC, axis=1), beyond_NK.astype(np.float32)], axis=1)
    return ordered_NK, np.minimum.accumulate(mixed_NK, axis=1)


def _margins(unit_NV: csr_array, weights: csr_array, labels_NC: NDArray[np.int64]) -> NDArray[np.float32]:
    """Each label's margin at its row, float32 (N, C); of padding any."""
    margins_NC = np.empty(labels_NC.shape, dtype=np.float32)
    for start in range(0, len(labels_NC), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        products_NL = (unit_NV[rows] @ weights).toarray()
        margins_NC[rows] = np.take_along_axis(products_NL, np.maximum(labels_NC[rows], 0), axis=1) - 1
    return margins_NC


def _unit_rows(inputs: csr_array, idf: NDArray[np.float32] | None) -> csr_array:
    """TF-IDF, (1 + ln count) * idf, of texts, or features as they are, at unit length; rows of nothing stay so."""
    rows = inputs.copy()
    rows.sum_duplicates()  # sequences name a token as often as it stands in the text
    if idf is not None:
        rows.data = (1 + np.log(rows.data)) * idf[rows.indices]
    squares_N = np.add.reduceat(np.append(np.square(rows.data), 0), rows.indptr[:-1]) * (np.diff(rows.indptr) > 0)
    lengths_N = np.sqrt(np.where(squares_N > 0, squares_N, 1))
    rows.data = (rows.data / np.repeat(lengths_N, np.diff(rows.indptr))).astype(np.float32)
    return rows
