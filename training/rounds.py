"""Training of word classifiers in rounds, each against what the one before confused.

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
from scipy.sparse import csr_array

from training import memory, metrics
from training.calibration import fit_platt
from training.data.dataset import Dataset
from training.data.sparse import narrow_csr
from training.products import products
from training.reranker import Candidates, Mixture, Reranker, RerankerConfig
from training.svm import fit_classifiers
from training.word_rows import below, word_rows

# Rows whose first labels by the model, and by the classifiers, are looked at for negatives. A model may rank all labels
# at the cost of all, so it is asked about fewer: five times as many gave the same nDCG@5 on the held-out rows of the
# embedded sample and of eurlex57k.
RANKED_ROWS, MINED_ROWS = 10_000, 200_000
SHARES = tuple(share / 10 for share in range(11))
CHOSEN_AT = 5

# Of a matrix of inputs the best k labels of every row and their raw scores, padded with -1 and NaN.
Rank = Callable[[csr_array, int], tuple[NDArray[np.int64], NDArray[np.float32]]]


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
    rounds = _Rounds(rank, dataset, config, piece_count, seed)
    best = rounds.train(log)
    if not dataset.validation_drawn:
        return Fitted(best.reranker, best.reranker)
    return Fitted(best.reranker, replace(best.reranker, weights=rounds.train_on_all(best)))


@dataclass(frozen=True)
class _Round:
    """What a round came to.

    Attributes:
        gain: nDCG@5 of the held-out rows.
        reranker: its classifiers, with the best that they may say.
        confused_NL: what these were told apart from, bool CSR.
    """

    gain: float
    reranker: Reranker
    confused_NL: csr_array


class _Rounds:
    """The rows that are learned from, and what has been confused so far."""

    def __init__(self, rank: Rank, dataset: Dataset, config: RerankerConfig, piece_count: int, seed: int) -> None:
        self._config, self._seed, self._held = config, seed, dataset.validation
        self._count = min(config.candidates, dataset.label_count)
        self._nominees = min(config.nominees, dataset.label_count)
        self._rows = rows = word_rows(dataset, config.label_texts, config.pairs, piece_count)
        self._held_NW = rows.held_NW
        self._answers = rank(self._held.inputs, self._count)
        drawn = np.random.default_rng(seed).permutation(rows.count)
        ranked, self._mined = np.sort(drawn[:RANKED_ROWS]), np.sort(drawn[:MINED_ROWS])
        found_MC = rank(rows.inputs(ranked), self._count)[0]
        self._confused_NL = _marked(ranked, found_MC, (rows.count, dataset.label_count))

    def train(self, log: Callable[[str], None]) -> _Round:
        """All rounds: the best one."""
        unit_NW, targets_NL = self._rows.learned
        best: list[_Round] = []  # one at most: classifiers are large
        rounds = self._config.rounds if self._nominees else 1  # without nominees nothing new is confused
        for turn in range(1, rounds + 1):
            weights = self._fit(unit_NW, targets_NL, self._confused_NL)
            best = [max([*best, *self._judged(weights)], key=lambda one: one.gain)]
            gain, mixture = best[0].gain, best[0].reranker.mixture
            log(
                f"words {turn}/{rounds}  {weights.nnz:,} weights; best so far: validation nDCG@{CHOSEN_AT} "
                f"{gain:5.2f}, share {mixture.share}, {mixture.nominees} nominees"
            )
            if turn < rounds:
                self._confused_NL = self._confused_NL + self._nominated(self._mined, unit_NW, weights)
        return best[0]

    def train_on_all(self, best: _Round) -> csr_array:
        """The best round's classifiers trained on the held-out rows too."""
        every, held = np.arange(len(self._held)), self._held
        confused_NL = _marked(every, self._answers[0], held.targets.shape)
        if self._nominees:
            confused_NL = confused_NL + self._nominated(every, self._held_NW, best.reranker.weights)
        return self._fit(self._rows.unit_NW, self._rows.targets_NL, below(best.confused_NL, confused_NL))

    def _fit(self, inputs_NW: csr_array, targets_NL: csr_array, negatives_NL: csr_array) -> csr_array:
        cost, least_weight = self._config.cost, self._config.least_weight
        weights = fit_classifiers(
            inputs_NW, targets_NL, negatives_NL, cost=cost, least_weight=least_weight, seed=self._seed
        )
        memory.return_freed()
        return weights

    def _judged(self, weights: csr_array) -> list[_Round]:
        """What the round came to without nominees and with them."""
        judged = []
        for nominees in sorted({0, self._nominees}):
            found = Candidates.of(self._held_NW, weights, *self._answers, nominees)
            mixture = fit_mixture(found, self._held.targets, self._count, nominees)
            reranker = Reranker(weights, self._rows.weighing, mixture)
            judged.append(_Round(_gain(mixture, found, self._held.targets), reranker, self._confused_NL))
        return judged

    def _nominated(self, rows: NDArray[np.int64], unit_NW: csr_array, weights: csr_array) -> csr_array:
        """Which labels the classifiers put first in some rows, given in rising order: bool CSR (N, L)."""
        unit_MW = unit_NW if len(rows) == unit_NW.shape[0] else csr_array(unit_NW[rows])
        labels_MC, _ = products(unit_MW, weights, np.empty((len(rows), 0), dtype=np.int64), self._nominees)
        return _marked(rows, labels_MC, (unit_NW.shape[0], weights.shape[1]))


def _marked(rows: NDArray[np.int64], labels_MC: NDArray[np.int64], shape: tuple[int, int]) -> csr_array:
    """Which labels stand beside which rows, given in rising order, padding left out: bool CSR (N, L)."""
    present_MC = labels_MC != metrics.PADDING
    counts_N = np.zeros(shape[0], dtype=np.int64)
    counts_N[rows] = present_MC.sum(axis=1)
    labels = labels_MC[present_MC].astype(np.int32)
    return narrow_csr(np.ones(labels.size, dtype=np.bool_), labels, np.append(0, np.cumsum(counts_N)), shape)


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
