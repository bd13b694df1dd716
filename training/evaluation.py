"""Ranks the labels of a split with a model and measures the ranking."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor

from training import metrics
from training.artifact import Artifact
from training.data.batches import Bags, Rows
from training.data.card import Card
from training.data.dataset import UnsuitableData, read_rows
from training.data.records import Source
from training.methods.base import Model

SCORES_AT_ONCE = 4_000_000
RECALL_AT = 100


@torch.no_grad()
def rank(
    model: Model, inputs: csr_array, label_count: int, k: int, removed: csr_array | None = None
) -> NDArray[np.int64]:
    """The best k labels of every row, ties by label row.

    Args:
        model: scorer; switched to evaluation mode and left there.
        inputs: bags, float32 CSR (N, V).
        label_count: L.
        k: ranks wanted.
        removed: pairs that must not be predicted (reciprocal pairs of the filter file), CSR (N, L).

    Returns:
        int64 (N, k), best first; padded with -1 where fewer labels may be predicted.
    """
    model.eval()
    device = next(model.parameters()).device
    usable = min(k, label_count)
    ranked_NK = np.full((inputs.shape[0], k), metrics.PADDING, dtype=np.int64)
    step = max(1, SCORES_AT_ONCE // model.scores_per_query(label_count))
    for start in range(0, inputs.shape[0], step):
        rows = slice(start, start + step)
        scores_QL = model.score(Bags.from_csr(inputs[rows], device))
        if removed is not None:
            queries, labels = removed[rows].nonzero()
            scores_QL[torch.from_numpy(queries), torch.from_numpy(labels)] = -torch.inf
        ranked_NK[rows, :usable] = _top(scores_QL, usable).cpu().numpy()
    return ranked_NK


def _top(scores_QL: Tensor, k: int) -> Tensor:
    """Rows of the k highest scores, ties by label row, as `topk` alone does not promise: int64 (Q, k).

    Scores that are no number, or minus infinity, are no predictions.
    """
    scores_QL = scores_QL.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
    kth_Q1 = scores_QL.topk(k, dim=1).values[:, -1:]
    above_QL, tied_QL = scores_QL > kth_Q1, scores_QL == kth_Q1
    left_Q1 = k - above_QL.sum(dim=1, keepdim=True)
    kept_QL = above_QL | (tied_QL & (tied_QL.cumsum(dim=1) <= left_Q1))
    labels_QK = kept_QL.nonzero()[:, 1].view(-1, k)
    ordered = scores_QL.gather(1, labels_QK).sort(dim=1, descending=True, stable=True)
    return labels_QK.gather(1, ordered.indices).masked_fill(ordered.values == -torch.inf, metrics.PADDING)


def evaluate(
    model: Model,
    rows: Rows,
    label_counts_L: NDArray[np.int64],
    train_rows: int,
    card: Card,
    ks: Sequence[int],
    removed: csr_array | None = None,
) -> dict[str, float]:
    """All measures of a split at ranks ``ks``, in percent; ``constant_P@1`` is the constant predictor's.

    Args:
        model: scorer.
        rows: the split.
        label_counts_L: training points of each label.
        train_rows: training points that ``label_counts_L`` was counted on.
        card: propensity constants.
        ks: ranks.
        removed: pairs that must not be predicted, CSR (N, L).
    """
    label_count = rows.targets.shape[1]
    propensities = metrics.inverse_propensities(label_counts_L, train_rows, card.propensity_a, card.propensity_b)
    ranked_NK = rank(model, rows.inputs, label_count, max(ks), removed)
    constant = metrics.hits(metrics.constant_ranking(label_counts_L, len(rows), 1), rows.targets).mean()
    measures = metrics.report(ranked_NK, rows.targets, propensities, sorted(set(ks)))
    return measures | {"constant_P@1": 100 * float(constant)}


def evaluate_artifact(artifact: Artifact, source: Source, split: str, ks: Sequence[int]) -> dict[str, float]:
    """Measure a trained model on a split of a data folder; recall at 100 is always among the measures.

    Raises:
        DataError: the split is missing or malformed.
        UnsuitableData: the folder's labels or features are not those the model was trained on.
    """
    config = artifact.config
    _check_same_labels(artifact, source)
    rows = read_rows(source, split, artifact.tokenizer, config.run.texts)
    removed = None
    pairs = source.filter_pairs(split)
    if len(pairs):
        removed = csr_array((np.ones(len(pairs), dtype=bool), (pairs[:, 0], pairs[:, 1])), shape=rows.targets.shape)
    measures = evaluate(
        artifact.restore(), rows, artifact.label_counts, config.counted_rows, config.card, [*ks, RECALL_AT], removed
    )
    unasked = set() if RECALL_AT in ks else {f"{name}@{RECALL_AT}" for name in ("P", "nDCG", "PSP", "RP", "coverage")}
    return {name: value for name, value in measures.items() if name not in unasked}


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
