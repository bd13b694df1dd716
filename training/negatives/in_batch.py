"""The pool of labels that a batch is trained against: sampled positives, then hard negatives, then labels that fill it.

Each query's negatives are the others' positives, the hard negatives of all queries, and the labels that fill the pool
up: a pool of positives alone shows a rare label almost never as a negative, and rare labels are then predicted far too
often.

UniDEC's pool of picked labels: the UniDEC paper, WWW 2025, section on the pool of picked-some labels. To fill it up
with uniform draws is ours; the paper takes the positives that were not sampled.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from training.data.batches import Positives

Fill = Literal["uniform", "positives"]


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


def draw_pool(
    positives: Positives,
    queries: int,
    per_query: int,
    size: int,
    label_counts_L: Tensor,
    hard: Tensor | None = None,
    fill: Fill = "uniform",
    own: Callable[[Tensor], Tensor] = lambda labels_P: labels_P,
) -> Pool:
    """Draw up to ``per_query`` positives of each query, with replacement, add hard negatives, and fill the pool up.

    Args:
        positives: true labels of the batch.
        queries: rows of the batch Q; a row without true labels draws nothing and stays without positives.
        per_query: draws per query, beta.
        size: labels in the pool, less what is drawn twice; beyond it the positives most frequent in training stay.
        label_counts_L: int64, training points of each label.
        hard: hard negatives of all queries, a label as often as it was drawn; those drawn most often come first.
        fill: what else, if there is room: labels drawn uniformly, or the batch's other positives, the most frequent
            first.
        own: which of the labels are wanted: see `training.team.Team.own`.
    """
    labels_P: Tensor = torch.unique(_draw_positives(positives, queries, per_query))
    if len(labels_P) > size:
        kept = torch.argsort(label_counts_L[labels_P], descending=True, stable=True)[:size]
        labels_P = labels_P[kept].sort().values
    if hard is not None:
        labels_P = _with_most_frequent(labels_P, hard, size)
    if fill == "positives" and positives.labels.numel():
        labels_P = _with_most_frequent(labels_P, positives.labels, size)
    # A pool holds one label at least: a batch may be without any true label.
    missing = size - len(labels_P) if fill == "uniform" else int(not len(labels_P))
    if missing:
        others = torch.randint(len(label_counts_L), (missing,), device=labels_P.device)
        labels_P = torch.unique(torch.cat([labels_P, others]))
    labels_P = own(labels_P)
    return Pool(labels_P, pool_targets(positives, queries, labels_P))


def _draw_positives(positives: Positives, queries: int, per_query: int) -> Tensor:
    device = positives.labels.device
    counts_Q = torch.bincount(positives.queries, minlength=queries)
    starts_Q = counts_Q.cumsum(0) - counts_Q
    labelled = counts_Q.nonzero().squeeze(1)
    draws = torch.rand(len(labelled), per_query, device=device) * counts_Q[labelled, None]
    return positives.labels[(starts_Q[labelled, None] + draws.long()).flatten()]


def _with_most_frequent(labels_P: Tensor, others: Tensor, size: int) -> Tensor:
    """The pool with further labels, as far as there is room: those that occur most often first, ties by label row."""
    further, counts = torch.unique(others[~torch.isin(others, labels_P)], return_counts=True)
    first = counts.argsort(descending=True, stable=True)[: size - len(labels_P)]
    joined: Tensor = torch.cat([labels_P, further[first]]).sort().values
    return joined


def pool_targets(positives: Positives, queries: int, labels_P: Tensor) -> Tensor:
    """Relevance of every pool label to every query, float32 (Q, P).

    Args:
        positives: true labels of the batch.
        queries: rows of the batch Q.
        labels_P: pool labels in rising order.
    """
    if not len(labels_P):  # a worker may have no label of the pool
        return torch.zeros(queries, 0, device=labels_P.device)
    positions = torch.searchsorted(labels_P, positives.labels).clamp(max=len(labels_P) - 1)
    inside = labels_P[positions] == positives.labels
    targets_QP = torch.zeros(queries, len(labels_P), device=labels_P.device)
    targets_QP[positives.queries[inside], positions[inside]] = positives.relevances[inside]
    return targets_QP
