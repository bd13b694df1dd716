"""Ranks the labels of a split with a model and measures the ranking."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array

from training import metrics
from training.artifact import Artifact
from training.calibration import RANKS, Calibration, fit_calibration
from training.data.batches import Bags, Rows
from training.data.card import Card
from training.data.dataset import Dataset, UnsuitableData, read_rows
from training.data.records import Source
from training.methods.base import Model
from training.reranker import Reranker, RerankerConfig
from training.rounds import Fitted, fit_reranker

SCORES_AT_ONCE = 4_000_000
RECALL_AT = 100


def ranking(
    model: Model,
    inputs: csr_array,
    label_count: int,
    k: int,
    removed: csr_array | None = None,
    reranker: Reranker | None = None,
    words: csr_array | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The best k labels of every row, ties by label row, and their raw scores.

    Args:
        model: scorer; switched to evaluation mode and left there.
        inputs: bags, float32 CSR (N, V).
        label_count: L.
        k: ranks wanted.
        removed: pairs that must not be predicted (reciprocal pairs of the filter file), CSR (N, L).
        reranker: orders the answers anew, and gives them its scores.
        words: what the re-ranker reads (see `Rows.reading`); None: the inputs.

    Returns:
        Label rows int64 (N, k), best first, and scores float32 (N, k); padded with -1 and NaN where fewer labels may be
            predicted.
    """
    if reranker is None:
        return _ranking(model, inputs, label_count, k, removed)
    found = _ranking(model, inputs, label_count, max(k, reranker.mixture.candidates), removed)
    labels_NK, scores_NK = reranker.rerank(inputs if words is None else words, *found)
    if removed is not None:  # classifiers nominate what they like
        gone_NK = metrics.hits(labels_NK, removed)
        order_NK = np.argsort(gone_NK, axis=1, kind="stable")
        labels_NK = np.take_along_axis(np.where(gone_NK, metrics.PADDING, labels_NK), order_NK, axis=1)
        scores_NK = np.take_along_axis(np.where(gone_NK, np.nan, scores_NK), order_NK, axis=1)
    return labels_NK[:, :k], scores_NK[:, :k]


@torch.no_grad()
def _ranking(
    model: Model, inputs: csr_array, label_count: int, k: int, removed: csr_array | None
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The model's own ranking: see `ranking`.

    Returns:
        Label rows int64 (N, k), best first, and scores float32 (N, k); padded with -1 and NaN where fewer labels may be
            predicted.
    """
    model.eval()
    device = next(model.parameters()).device
    usable = min(k, label_count)
    ranked_NK = np.full((inputs.shape[0], k), metrics.PADDING, dtype=np.int64)
    scores_NK = np.full((inputs.shape[0], k), np.nan, dtype=np.float32)
    step = max(1, SCORES_AT_ONCE // model.scores_per_query(label_count))
    for start in range(0, inputs.shape[0], step):
        rows = slice(start, start + step)
        scores_QL = model.score(Bags.from_csr(inputs[rows], device))
        if removed is not None:
            queries, labels = removed[rows].nonzero()
            scores_QL[torch.from_numpy(queries), torch.from_numpy(labels)] = -torch.inf
        labels_QK, best_QK = model.team.best(scores_QL, usable)
        ranked_NK[rows, :usable] = labels_QK.cpu().numpy()
        scores_NK[rows, :usable] = best_QK.cpu().numpy()
    return ranked_NK, scores_NK


def reranker_of(
    model: Model,
    dataset: Dataset,
    config: RerankerConfig,
    piece_count: int,
    seed: int,
    log: Callable[[str], None] = lambda line: None,
) -> Fitted:
    """Word classifiers for a trained model: see `training.rounds.fit_reranker`."""

    def rank_own(inputs: csr_array, k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        return ranking(model, inputs, dataset.label_count, k)

    return fit_reranker(rank_own, dataset, config, piece_count, seed, log)


def calibrated(model: Model, rows: Rows, seed: int, reranker: Reranker | None = None) -> Calibration:
    """The maps from the model's raw scores to probabilities, fitted to rows that it was not trained on.

    Args:
        model: scorer.
        rows: the validation split.
        seed: of the folds.
        reranker: of the model's answers.
    """
    label_count = rows.targets.shape[1]
    ranked_NK, scores_NK = ranking(
        model, rows.inputs, label_count, min(RANKS, label_count), reranker=reranker, words=rows.words
    )
    return fit_calibration(scores_NK, metrics.hits(ranked_NK, rows.targets), seed)


def evaluate(
    model: Model,
    rows: Rows,
    label_counts_L: NDArray[np.int64],
    train_rows: int,
    card: Card,
    ks: Sequence[int],
    removed: csr_array | None = None,
    calibration: Calibration | None = None,
    reranker: Reranker | None = None,
) -> dict[str, float]:
    """All measures of a split at ranks ``ks``, in percent.

    ``constant_P@1`` is the constant predictor's; ``ECE@k``, measured where there is a calibration, is the calibration
    error of the answers at ranks 1 to k.

    Args:
        model: scorer.
        rows: the split.
        label_counts_L: training points of each label.
        train_rows: training points that ``label_counts_L`` was counted on.
        card: propensity constants.
        ks: ranks.
        removed: pairs that must not be predicted, CSR (N, L).
        calibration: of the model's scores.
        reranker: of the model's answers.
    """
    ranked_NK, scores_NK = ranking(model, rows.inputs, rows.targets.shape[1], max(ks), removed, reranker, rows.words)
    return _measures(ranked_NK, scores_NK, rows.targets, label_counts_L, train_rows, card, ks, calibration)


def rank_artifact(
    artifact: Artifact, source: Source, split: str, k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32], csr_array]:
    """The best k labels of every row of a split, pairs of the filter file left out, their scores and the true labels.

    Returns:
        int64 (N, k), padded with -1; raw scores float32 (N, k); float32 CSR (N, L).

    Raises:
        DataError: the split is missing or malformed.
        UnsuitableData: the folder's labels or features are not those the model was trained on.
    """
    _check_same_labels(artifact, source)
    texts, in_order = artifact.config.run.texts, artifact.reranker is not None
    rows = read_rows(source, split, artifact.tokenizer, texts, in_order=in_order)
    removed = None
    pairs = source.filter_pairs(split)
    if len(pairs):
        removed = csr_array((np.ones(len(pairs), dtype=bool), (pairs[:, 0], pairs[:, 1])), shape=rows.targets.shape)
    ranked_NK, scores_NK = ranking(
        artifact.restore(), rows.inputs, rows.targets.shape[1], k, removed, artifact.reranker, rows.words
    )
    return ranked_NK, scores_NK, rows.targets


def measure_artifact(
    artifact: Artifact,
    ranked_NK: NDArray[np.int64],
    scores_NK: NDArray[np.float32],
    targets_NL: csr_array,
    ks: Sequence[int],
) -> dict[str, float]:
    """Measures of what `rank_artifact` gives, for K of at least 100: recall at 100 is always among them."""
    config, counts_L = artifact.config, artifact.label_counts
    given = (ranked_NK, scores_NK, targets_NL, counts_L, config.counted_rows, config.card)
    measures = _measures(*given, [*ks, RECALL_AT], artifact.calibration)
    names = ("P", "nDCG", "PSP", "RP", "coverage", "ECE")
    unasked = set() if RECALL_AT in ks else {f"{name}@{RECALL_AT}" for name in names}
    return {name: value for name, value in measures.items() if name not in unasked}


def evaluate_artifact(artifact: Artifact, source: Source, split: str, ks: Sequence[int]) -> dict[str, float]:
    """Measure a trained model on a split of a data folder; raises as `rank_artifact`."""
    return measure_artifact(artifact, *rank_artifact(artifact, source, split, max(*ks, RECALL_AT)), ks)


def _measures(
    ranked_NK: NDArray[np.int64],
    scores_NK: NDArray[np.float32],
    targets_NL: csr_array,
    label_counts_L: NDArray[np.int64],
    train_rows: int,
    card: Card,
    ks: Sequence[int],
    calibration: Calibration | None,
) -> dict[str, float]:
    propensities = metrics.inverse_propensities(label_counts_L, train_rows, card.propensity_a, card.propensity_b)
    constant = metrics.hits(metrics.constant_ranking(label_counts_L, len(ranked_NK), 1), targets_NL).mean()
    measures = metrics.report(ranked_NK, targets_NL, propensities, sorted(set(ks)))
    if calibration is not None:
        hits_NK = metrics.hits(ranked_NK, targets_NL)
        measures |= _calibration_errors(calibration.probabilities(scores_NK), hits_NK, sorted(set(ks)))
    return measures | {"constant_P@1": 100 * float(constant)}


def _calibration_errors(
    probabilities_NK: NDArray[np.float64], hits_NK: NDArray[np.bool_], ks: Sequence[int]
) -> dict[str, float]:
    answered_NK = ~np.isnan(probabilities_NK)
    errors = {}
    for k in ks:
        answers = (slice(None), slice(k))
        of_answers = answered_NK[answers]
        error = metrics.calibration_error(probabilities_NK[answers][of_answers], hits_NK[answers][of_answers])
        errors[f"ECE@{k}"] = 100 * error
    return errors


def _check_same_labels(artifact: Artifact, source: Source) -> None:
    if source.label_ids != artifact.label_ids:
        found = (
            f"{len(source.label_ids):,} labels"
            if len(source.label_ids) != len(artifact.label_ids)
            else "other ids or another order"
        )
        raise UnsuitableData(
            f"{source.card.name}: expected the {len(artifact.label_ids):,} labels of {artifact.path}, found {found}"
        )
    if source.card.input != artifact.config.card.input and artifact.config.shape.text:
        raise UnsuitableData(f"{source.card.name}: expected texts, found features")
    if not artifact.config.shape.text and source.card.feature_count != artifact.config.shape.input_width:
        expected = artifact.config.shape.input_width
        raise UnsuitableData(f"{source.card.name}: expected {expected:,} features, found {source.card.feature_count}")
