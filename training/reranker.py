"""Word classifiers that order anew the labels which a model found.

A dense encoder generalises over words and forgets which exact word a rare label hangs on; a linear classifier over
words remembers, but knows nothing else. So an answer gets a second opinion: each label has a sparse linear classifier
(`training.svm`), the classifiers nominate labels that the model did not find, and what the answer is ordered by is a
weighted mean of two probabilities, the model's own and the classifier's.

A classifier is only asked about labels that the model found or that classifiers nominate, so these are what it learns
to tell apart: its negatives are the training rows whose first labels it is among, by the model in a first round, by the
classifiers of that round too in a second. The first is what PECOS calls matcher-aware negatives (Zhang et al., "Fast
Multi-Resolution Transformer Fine-tuning for Extreme Multi-label Text Classification", NeurIPS 2021). Few rows a label
are a few seconds' work, where all would take minutes for the same result.

Letters: N rows, K labels of an answer, C candidates (labels that the model found, then nominees), L labels, V words or
features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy.sparse import csr_array

from training import metrics
from training.calibration import PlattMap, fit_platt
from training.data.dataset import Dataset
from training.svm import fit_classifiers
from training.topk import top
from training.vocabulary import inverse_document_frequency

# Rows whose first labels are looked at for negatives: more would take as long as training does.
MINED_ROWS = 50_000
SHARES = tuple(share / 10 for share in range(10))
CHOSEN_AT = 5
ROWS_AT_ONCE = 64

# Of a matrix of inputs the best k labels of every row and their raw scores, padded with -1 and NaN.
Rank = Callable[[csr_array, int], tuple[NDArray[np.int64], NDArray[np.float32]]]


class RerankerConfig(BaseModel):
    """Options of the re-ranking of a model's answers by word classifiers."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    candidates: int = Field(default=100, ge=2, le=10_000, description="labels of an answer that are ordered anew")
    cost: float = Field(default=0.5, gt=0, description="of a margin that is missed: higher fits training rows closer")
    nominees: int = Field(default=50, ge=0, le=10_000, description="labels that classifiers may add to them, at most")
    least_weight: float = Field(default=0.02, ge=0, description="magnitude below which a weight is dropped")


class Mixture(BaseModel):
    """How two opinions become one: (1 - share) * own(score) + share * words(margin).

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
        return (1 - self.share) * own_NC + self.share * words_NC


@dataclass(frozen=True)
class Candidates:
    """What both opinions are asked about; padded with -1 and NaN.

    Attributes:
        labels_NC: the model's first labels, then nominees that are not among them.
        scores_NC: the model's raw scores; a nominee has that of the model's last one here, which is the most it can be.
        margins_NC: the classifiers'.
    """

    labels_NC: NDArray[np.int64]
    scores_NC: NDArray[np.float32]
    margins_NC: NDArray[np.float32]

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
        """Order the first labels of every row anew, nominees among them; what lies beyond follows as it was.

        Args:
            inputs: what the rows are, float32 CSR (N, V), as the model reads them.
            labels_NK: best first, padded with -1; at least the mixture's candidates, where there are so many labels.
            scores_NK: the model's, padded with NaN.

        Returns:
            As given, with scores that never rise in a row.
        """
        mixture, K = self.mixture, labels_NK.shape[1]
        head, beyond = slice(None, mixture.candidates), slice(mixture.candidates, None)
        found = _candidates(
            _unit_rows(inputs, self.idf), self.weights, labels_NK[:, head], scores_NK[:, head], mixture.nominees
        )
        labels_NC, mixed_NC = found.ordered(mixture)
        # No classifier speaks for what lies beyond.
        beyond_NK = (1 - mixture.share) * mixture.own(scores_NK[:, beyond].astype(np.float64))
        labels = np.concatenate([labels_NC, _without(labels_NK[:, beyond], labels_NC)], axis=1)
        scores = np.concatenate([mixed_NC, beyond_NK.astype(np.float32)], axis=1)
        order_NK = np.argsort(labels == metrics.PADDING, axis=1, kind="stable")[:, :K]
        labels_NK, scores_NK = (np.take_along_axis(values, order_NK, axis=1) for values in (labels, scores))
        scores_NK[labels_NK == metrics.PADDING] = np.nan
        return labels_NK, np.minimum.accumulate(scores_NK, axis=1)


def fit_reranker(rank: Rank, dataset: Dataset, config: RerankerConfig, seed: int) -> Reranker:
    """Train the classifiers on the training rows, and choose what they may say on the validation rows.

    Without nominees, which only cost where the model finds nearly all, unless the second round's order is better.

    Args:
        rank: the trained model.
        dataset: what it was trained on.
        config: options.
        seed: of the rows that negatives come from, and of the order of steps.
    """
    count = min(config.candidates, dataset.label_count)
    nominees = min(config.nominees, dataset.label_count)
    train, held = dataset.train, dataset.validation
    idf = None if dataset.tokenizer is None else inverse_document_frequency(train.inputs)
    unit_NV, held_NV = _unit_rows(train.inputs, idf), _unit_rows(held.inputs, idf)
    mined = np.sort(np.random.default_rng(seed).permutation(len(train))[:MINED_ROWS])
    answers = rank(held.inputs, count)

    def fitted(confused_MC: NDArray[np.int64], nominees: int) -> tuple[float, Reranker]:
        negatives = _marked(mined, confused_MC, train.targets.shape)
        weights = fit_classifiers(
            unit_NV, train.targets, negatives, cost=config.cost, least_weight=config.least_weight, seed=seed
        )
        found = _candidates(held_NV, weights, *answers, nominees)
        mixture = fit_mixture(found, held.targets, count, nominees)
        return _gain(mixture, found, held.targets), Reranker(weights, idf, mixture)

    labels_MC, _ = rank(train.inputs[mined], count)
    rounds = [fitted(labels_MC, 0)]
    if nominees:
        products = _products(unit_NV[mined], rounds[0][1].weights)
        nominees_MC = np.concatenate([_nominated(some_NL, labels_MC[rows], nominees) for rows, some_NL in products])
        rounds.append(fitted(np.concatenate([labels_MC, nominees_MC], axis=1), nominees))
    _, best = max(rounds, key=lambda gain_and_reranker: gain_and_reranker[0])
    return best


def fit_mixture(found: Candidates, targets_NL: csr_array, candidates: int, nominees: int) -> Mixture:
    """Fit both probabilities, and choose the share with the best nDCG@5, of equal ones the least."""
    present_NC = found.labels_NC != metrics.PADDING
    hits = metrics.hits(found.labels_NC, targets_NL)[present_NC]
    own, words = (
        fit_platt(values_NC[present_NC].astype(np.float64), hits) for values_NC in (found.scores_NC, found.margins_NC)
    )
    mixtures = [
        Mixture(own=own, words=words, share=share, candidates=candidates, nominees=nominees) for share in SHARES
    ]
    return max(mixtures, key=lambda mixture: _gain(mixture, found, targets_NL))


def _gain(mixture: Mixture, found: Candidates, targets_NL: csr_array) -> float:
    """nDCG@5, or of as many labels as there are."""
    ranked_NC, _ = found.ordered(mixture)
    k = min(CHOSEN_AT, ranked_NC.shape[1])
    return metrics.report(ranked_NC[:, :k], targets_NL, np.ones(targets_NL.shape[1]), [k])[f"nDCG@{k}"]


def _marked(rows: NDArray[np.int64], labels_MC: NDArray[np.int64], shape: tuple[int, int]) -> csr_array:
    """Which labels stand beside which rows, given in rising order, padding left out: bool CSR (N, L)."""
    present_MC = labels_MC != metrics.PADDING
    counts_N = np.zeros(shape[0], dtype=np.int64)
    counts_N[rows] = present_MC.sum(axis=1)
    labels = labels_MC[present_MC].astype(np.int32)
    return csr_array((np.ones(labels.size, dtype=np.bool_), labels, np.append(0, np.cumsum(counts_N))), shape=shape)


def _candidates(
    unit_NV: csr_array, weights: csr_array, labels_NC: NDArray[np.int64], scores_NC: NDArray[np.float32], nominees: int
) -> Candidates:
    """The model's labels with margins, and what the classifiers nominate beside them."""
    found = labels_NC.shape[1]
    all_NC = np.pad(labels_NC, ((0, 0), (0, nominees)), constant_values=metrics.PADDING)
    margins_NC = np.empty(all_NC.shape, dtype=np.float32)
    for rows, products_NL in _products(unit_NV, weights):
        all_NC[rows, found:] = _nominated(products_NL.copy(), labels_NC[rows], nominees)
        margins_NC[rows] = np.take_along_axis(products_NL, np.maximum(all_NC[rows], 0), axis=1) - 1
    lent_NC = np.where(all_NC[:, found:] == metrics.PADDING, np.nan, scores_NC[:, -1:]).astype(np.float32)
    return Candidates(all_NC, np.concatenate([scores_NC, lent_NC], axis=1), margins_NC)


def _without(labels_NK: NDArray[np.int64], known_NC: NDArray[np.int64]) -> NDArray[np.int64]:
    """The same with -1 in place of labels that are known in their row."""
    result_NK = labels_NK.copy()
    for row_K, known_C in zip(result_NK, known_NC, strict=True):
        row_K[np.isin(row_K, known_C)] = metrics.PADDING
    return result_NK


def _products(unit_NV: csr_array, weights: csr_array) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Products of some rows at a time with all classifiers, float32 (N, L), and which rows these are."""
    for start in range(0, unit_NV.shape[0], ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        yield rows, (unit_NV[rows] @ weights).toarray()


def _nominated(products_NL: NDArray[np.float32], known_NC: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Of the labels that are not known, those with the largest positive products, best first, ties by label row.

    The products of others are replaced.

    Returns:
        int64 (N, count), padded with -1.
    """
    if not count:
        return np.empty((len(products_NL), 0), dtype=np.int64)
    rows, places = (known_NC != metrics.PADDING).nonzero()
    products_NL[rows, known_NC[rows, places]] = 0
    products_NL[products_NL <= 0] = -np.inf  # no predictions
    labels: NDArray[np.int64] = top(torch.from_numpy(products_NL), count)[0].numpy()
    return labels


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
