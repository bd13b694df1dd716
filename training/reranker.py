"""Word classifiers that order anew the labels which a model found.

A dense encoder generalises over words and forgets which exact word a rare label hangs on; a linear classifier over
words remembers, but knows nothing else. So an answer gets a second opinion: each label has a sparse linear classifier
(`training.svm`) over the terms of texts (`training.terms`), the classifiers nominate labels that the model did not
find, and what the answer is ordered by is a weighted mean of two probabilities, the model's own and the classifier's.

A classifier is only asked about labels that the model found or that classifiers nominate, so these are what it learns
to tell apart: its negatives are the rows whose first labels it is among, by the model in a first round, by the
classifiers of the round before too in later ones. The first is what PECOS calls matcher-aware negatives (Zhang et al.,
"Fast Multi-Resolution Transformer Fine-tuning for Extreme Multi-label Text Classification", NeurIPS 2021). After three
rounds hardly a row is left that would move a classifier: they are then what training against all rows gives.

Letters: N rows, M mined rows, K labels of an answer, C candidates (labels that the model found, then nominees), L
labels, V words or features, W terms.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy.sparse import csr_array

from training import memory, metrics
from training.calibration import PlattMap, fit_platt
from training.data.dataset import Dataset
from training.data.sparse import narrow_csr
from training.products import products
from training.svm import fit_classifiers
from training.weighing import Weighing, unit_rows
from training.word_rows import below, word_rows

# Rows whose first labels by the model, and by the classifiers, are looked at for negatives. A model may rank all labels
# at the cost of all, so it is asked about fewer: five times as many gave the same nDCG@5 on the held-out rows of the
# embedded sample and of eurlex57k.
RANKED_ROWS, MINED_ROWS = 10_000, 200_000
SHARES = tuple(share / 10 for share in range(11))
CHOSEN_AT = 5

# Of a matrix of inputs the best k labels of every row and their raw scores, padded with -1 and NaN.
Rank = Callable[[csr_array, int], tuple[NDArray[np.int64], NDArray[np.float32]]]


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
        found = _candidates(rows, self.weights, labels_NK[:, head], scores_NK[:, head], mixture.nominees)
        labels_NC, mixed_NC = found.ordered(mixture)
        # No classifier speaks for what lies beyond.
        beyond_NK = (1 - mixture.share) * mixture.own(scores_NK[:, beyond].astype(np.float64))
        labels = np.concatenate([labels_NC, _without(labels_NK[:, beyond], labels_NC)], axis=1)
        scores = np.concatenate([mixed_NC, beyond_NK.astype(np.float32)], axis=1)
        order_NK = np.argsort(labels == metrics.PADDING, axis=1, kind="stable")[:, :K]
        labels_NK, scores_NK = (np.take_along_axis(values, order_NK, axis=1) for values in (labels, scores))
        scores_NK[labels_NK == metrics.PADDING] = np.nan
        return labels_NK, np.minimum.accumulate(scores_NK, axis=1)


@dataclass(frozen=True)
class Fitted:
    """What `fit_reranker` makes.

    Attributes:
        chosen: with what the held-out rows chose, which it has not been trained on: what calibration is fitted to.
        final: the same trained on the held-out rows too, where they were drawn from the training rows.
    """

    chosen: Reranker
    final: Reranker


def fit_reranker(
    rank: Rank, dataset: Dataset, config: RerankerConfig, piece_count: int, seed: int, log: Callable[[str], None]
) -> Fitted:
    """Train the classifiers on the training rows, and choose what they may say on the validation rows.

    The held-out rows choose among the rounds, each with nominees and without: these only cost where the model finds
    nearly all.

    Args:
        rank: the trained model.
        dataset: what it was trained on; of texts, with tokens in reading order.
        config: options.
        piece_count: token ids below it are pieces of words: see `training.terms.Terms.learn`.
        seed: of the rows that negatives come from, and of the order of steps.
        log: takes one line of text per round.
    """
    count = min(config.candidates, dataset.label_count)
    nominees = min(config.nominees, dataset.label_count)
    rows = word_rows(dataset, config.label_texts, config.pairs, piece_count)
    (unit_NW, targets_NL), held_NW, held = rows.learned, rows.held_NW, dataset.validation
    drawn = np.random.default_rng(seed).permutation(rows.count)
    ranked, mined = np.sort(drawn[:RANKED_ROWS]), np.sort(drawn[:MINED_ROWS])
    answers = rank(held.inputs, count)

    def fit(inputs_NW: csr_array, targets_NL: csr_array, negatives_NL: csr_array) -> csr_array:
        return fit_classifiers(
            inputs_NW, targets_NL, negatives_NL, cost=config.cost, least_weight=config.least_weight, seed=seed
        )

    confused_NL = _marked(ranked, rank(rows.inputs(ranked), count)[0], targets_NL.shape)
    best: list[tuple[float, Reranker, csr_array]] = []  # one at most: classifiers are large
    for turn in range(1, config.rounds + 1):
        weights = fit(unit_NW, targets_NL, confused_NL)
        memory.return_freed()
        for nominated in sorted({0, nominees}):
            found = _candidates(held_NW, weights, *answers, nominated)
            mixture = fit_mixture(found, held.targets, count, nominated)
            new = _gain(mixture, found, held.targets), Reranker(weights, rows.weighing, mixture), confused_NL
            best = [max([*best, new], key=lambda one: one[0])]
        gain, chosen, _ = best[0]
        log(
            f"words {turn}/{config.rounds}  {weights.nnz:,} weights; best so far: validation nDCG@{CHOSEN_AT} "
            f"{gain:5.2f}, share {chosen.mixture.share}, {chosen.mixture.nominees} nominees"
        )
        if not nominees:
            break  # nothing new is confused
        if turn < config.rounds:
            confused_NL = _union(confused_NL, _nominated(mined, unit_NW, weights, nominees))
    _, chosen, confused_NL = best[0]
    if not dataset.validation_drawn:
        return Fitted(chosen, chosen)
    every = np.arange(len(held))
    held_NL = _marked(every, answers[0], held.targets.shape)
    if nominees:
        held_NL = _union(held_NL, _nominated(every, held_NW, chosen.weights, nominees))
    weights = fit(rows.unit_NW, rows.targets_NL, below(confused_NL, held_NL))
    return Fitted(chosen, replace(chosen, weights=weights))


def _nominated(rows: NDArray[np.int64], unit_NW: csr_array, weights: csr_array, nominees: int) -> csr_array:
    """Which labels the classifiers put first in some rows, given in rising order: bool CSR (N, L)."""
    unit_MW = unit_NW if len(rows) == unit_NW.shape[0] else csr_array(unit_NW[rows])
    labels_MC, _ = products(unit_MW, weights, np.empty((len(rows), 0), dtype=np.int64), nominees)
    return _marked(rows, labels_MC, (unit_NW.shape[0], weights.shape[1]))


def _marked(rows: NDArray[np.int64], labels_MC: NDArray[np.int64], shape: tuple[int, int]) -> csr_array:
    """Which labels stand beside which rows, given in rising order, padding left out: bool CSR (N, L)."""
    present_MC = labels_MC != metrics.PADDING
    counts_N = np.zeros(shape[0], dtype=np.int64)
    counts_N[rows] = present_MC.sum(axis=1)
    labels = labels_MC[present_MC].astype(np.int32)
    return narrow_csr(np.ones(labels.size, dtype=np.bool_), labels, np.append(0, np.cumsum(counts_N)), shape)


def _union(one: csr_array, other: csr_array) -> csr_array:
    return csr_array(one + other)


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


def _candidates(
    unit_NW: csr_array, weights: csr_array, labels_NC: NDArray[np.int64], scores_NC: NDArray[np.float32], nominees: int
) -> Candidates:
    """The model's labels with margins, and what the classifiers nominate beside them."""
    found = labels_NC.shape[1]
    all_NC, products_NC = products(unit_NW, weights, labels_NC, nominees)
    lent_NC = np.where(all_NC[:, found:] == metrics.PADDING, np.nan, scores_NC[:, -1:]).astype(np.float32)
    return Candidates(all_NC, np.concatenate([scores_NC, lent_NC], axis=1), products_NC - np.float32(1))


def _without(labels_NK: NDArray[np.int64], known_NC: NDArray[np.int64]) -> NDArray[np.int64]:
    """The same with -1 in place of labels that are known in their row."""
    result_NK = labels_NK.copy()
    for row_K, known_C in zip(result_NK, known_NC, strict=True):
        row_K[np.isin(row_K, known_C)] = metrics.PADDING
    return result_NK
