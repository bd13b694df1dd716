"""In-batch negatives: a pool of every query's sampled positives, filled up with labels drawn uniformly.

Each query's negatives are the others' positives and the uniform labels. The latter stand where mined hard negatives
will: a pool of positives alone shows a rare label almost never as a negative, and rare labels are then predicted far
too often.

UniDEC's pool of picked labels: the UniDEC paper, WWW 2025, section on the pool of picked-some labels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from training.data.batches import Positives


@dataclass(frozen=True)
class Pool:
    """The labels a batch is trained against.

    Attributes:
        labels_P: int64, distinct label rows in rising order.
        targets_QP: float32, relevance of each pool label to each query: rebuilt from the whole pool, so that a label
            drawn for one query is a positive of every other query it belongs to.
    """

    labels_P: Tensor
    targets_QP: Tensor


def draw_pool(positives: Positives, queries: int, per_query: int, size: int, label_counts_L: Tensor) -> Pool:
    """Draw up to ``per_query`` positives of each query, with replacement, and fill the pool up with uniform labels.

    Args:
        positives: true labels of the batch.
        queries: rows of the batch Q; a row without true labels draws nothing and stays without positives.
        per_query: draws per query, beta.
        size: labels in the pool, less what is drawn twice; beyond it the positives most frequent in training stay.
        label_counts_L: training points of each label.
    """
    device = positives.labels.device
    counts_Q = torch.bincount(positives.queries, minlength=queries)
    starts_Q = counts_Q.cumsum(0) - counts_Q
    labelled = counts_Q.nonzero().squeeze(1)
    draws = torch.rand(len(labelled), per_query, device=device) * counts_Q[labelled, None]
    drawn = positives.labels[(starts_Q[labelled, None] + draws.long()).flatten()]
    labels_P: Tensor = torch.unique(drawn)
    if len(labels_P) > size:
        kept = torch.argsort(label_counts_L[labels_P], descending=True, stable=True)[:size]
        labels_P = labels_P[kept].sort().values
    elif len(labels_P) < size:
        others = torch.randint(len(label_counts_L), (size - len(labels_P),), device=device)
        labels_P = torch.unique(torch.cat([labels_P, others]))
    return Pool(labels_P, pool_targets(positives, queries, labels_P))


def pool_targets(positives: Positives, queries: int, labels_P: Tensor) -> Tensor:
    """Relevance of every pool label to every query, float32 (Q, P).

    Args:
        positives: true labels of the batch.
        queries: rows of the batch Q.
        labels_P: pool labels in rising order.
    """
    positions = torch.searchsorted(labels_P, positives.labels).clamp(max=len(labels_P) - 1)
    inside = labels_P[positions] == positives.labels
    targets_QP = torch.zeros(queries, len(labels_P), device=labels_P.device)
    targets_QP[positives.queries[inside], positions[inside]] = positives.relevances[inside]
    return targets_QP
