"""Ranks the labels of a split with a model and measures the ranking."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array

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
    """The best min(k, L) labels of every row.

    Args:
        model: scorer; switched to evaluation mode and left there.
        inputs: bags, float32 CSR (N, V).
        label_count: L.
        k: ranks wanted.
        removed: pairs that must not be predicted (reciprocal pairs of the filter file), CSR (N, L).

    Returns:
        int64 (N, min(k, L)), best first.
    """
    model.eval()
    device = next(model.parameters()).device
    k = min(k, label_count)
    ranked_NK = np.empty((inputs.shape[0], k), dtype=np.int64)
    step = max(1, SCORES_AT_ONCE // label_count)
    for start in range(0, inputs.shape[0], step):
        rows = slice(start, start + step)
        scores_QL = model.score(Bags.from_csr(inputs[rows], device))
        if removed is not None:
            queries, labels = removed[rows].nonzero()
            scores_QL[torch.from_numpy(queries), torch.from_numpy(labels)] = -torch.inf
        ranked_NK[rows] = scores_QL.topk(k, dim=1).indices.cpu().numpy()
    return ranked_NK


def evaluate(
    model: Model,
    rows: Rows,
    label_counts_L: NDArray[np.int64],
    train_rows: int,
    card: Card,
    ks: Sequence[int],
    removed: csr_array | None = None,
) -> dict[str, float]:
    """All measures of a split at ranks ``ks`` (cut to L), in percent; ``constant_P@1`` is the constant predictor's."""
    label_count = rows.targets.shape[1]
    usable = sorted({min(k, label_count) for k in ks})
    propensities = metrics.inverse_propensities(label_counts_L, train_rows, card.propensity_a, card.propensity_b)
    ranked_NK = rank(model, rows.inputs, label_count, max(usable), removed)
    constant = metrics.hits(metrics.constant_ranking(label_counts_L, len(rows), 1), rows.targets).mean()
    return metrics.report(ranked_NK, rows.targets, propensities, usable) | {"constant_P@1": 100 * float(constant)}


def evaluate_artifact(artifact: Artifact, source: Source, split: str, ks: Sequence[int]) -> dict[str, float]:
    """Measure a trained model on a split of a data folder; recall at 100 is always among the measures.

    Raises:
        DataError: the split is missing or malformed.
        UnsuitableData: the folder's labels or features are not those the model was trained on.
    """
    config = artifact.config
    _check_same_labels(artifact, source)
    rows = read_rows(source, split, artifact.tokenizer, config.run.vocabulary.max_tokens)
    removed = None
    pairs = source.filter_pairs(split)
    if len(pairs):
        removed = csr_array((np.ones(len(pairs), dtype=bool), (pairs[:, 0], pairs[:, 1])), shape=rows.targets.shape)
    measures = evaluate(
        artifact.restore(), rows, artifact.label_counts, config.shape.train_rows, config.card, [*ks, RECALL_AT], removed
    )
    shown = {f"{name}@{k}" for name in ("P", "nDCG", "PSP", "R", "RP", "coverage") for k in ks}
    return {
        name: value
        for name, value in measures.items()
        if name in shown or name.startswith("R@") or name == "constant_P@1"
    }


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
    if not artifact.config.shape.text and source.card.feature_count != artifact.config.shape.input_width:
        expected = artifact.config.shape.input_width
        raise UnsuitableData(f"{source.card.name}: expected {expected:,} features, found {source.card.feature_count}")
