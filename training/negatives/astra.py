"""ASTRA's negatives: mined hard ones, and uniform ones that keep the loss unbiased.

"ASTRA: Accurate and Scalable ANNS-based Training of Extreme Classifiers", arXiv 2409.20156, mixes hard negatives, found
by a search among the classifier vectors that is renewed every few epochs, with uniform ones, which correct what a stale
search misses. The weights are ours, since the paper's could not be had: the loss over all labels is the sum over an
exact stratum, the positives and hard negatives of the batch, and over the rest, which a uniform sample stands for. It
is unbiased whatever the hard negatives are, and exact when the sample is the whole rest.

Letters: Q queries of a batch, P labels of a pool, L labels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from training.data.batches import Positives
from training.negatives.in_batch import pool_targets


@dataclass(frozen=True)
class WeightedPool:
    """The labels that stand for all labels in a batch's loss.

    Attributes:
        labels_P: int64, distinct label rows in rising order.
        targets_QP: float32, relevance of each pool label to each query.
        weights_P: float32, how many labels each stands for: 1 in the exact stratum.
    """

    labels_P: Tensor
    targets_QP: Tensor
    weights_P: Tensor


def draw_pool(
    positives: Positives,
    queries: int,
    hard: Tensor,
    uniform: int,
    label_count: int,
    own: Callable[[Tensor], Tensor] = lambda labels_P: labels_P,
) -> WeightedPool:
    """All positives and hard negatives of the batch, and uniform labels for the others.

    The sum over the pool of weight times loss has the sum over all labels of the loss as its expectation.

    Args:
        positives: true labels of the batch.
        queries: rows of the batch Q.
        hard: label rows, as often as they were drawn; any set leaves the estimate unbiased.
        uniform: labels drawn from the others, with replacement; if there are no more than that, all of them are taken.
        label_count: labels L.
        own: which of the labels are wanted: see `training.team.Team.own`.
    """
    exact = torch.unique(torch.cat([positives.labels, hard]))
    others = label_count - len(exact)
    if others <= uniform:
        labels_P = own(torch.arange(label_count, device=exact.device))
        return WeightedPool(labels_P, pool_targets(positives, queries, labels_P), torch.ones_like(labels_P).float())
    places, counts = torch.unique(torch.randint(others, (uniform,), device=exact.device), return_counts=True)
    # The n-th label outside the exact stratum: n plus as many exact labels as lie before it.
    gaps = exact - torch.arange(len(exact), device=exact.device)
    sampled = places + torch.searchsorted(gaps, places, right=True)
    weights = torch.cat([torch.ones(len(exact), device=exact.device), counts * (others / uniform)])
    drawn, order = torch.cat([exact, sampled]).sort()
    labels_P = own(drawn)
    weights_P = weights[order][torch.searchsorted(drawn, labels_P)]
    return WeightedPool(labels_P, pool_targets(positives, queries, labels_P), weights_P)
