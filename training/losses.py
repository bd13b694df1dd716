"""Losses: pure functions of scores and targets, one citation each.

Where workers train together, each scores all queries of a batch against its own labels. What a loss is then given is
one worker's columns (in the direction from labels to queries: rows), and `Shares` says with whom it adds up what goes
across them; it gives that worker's share, and the loss is the sum of all shares.

Letters: Q queries in a batch, P labels in a pool, J pairs of a query and one of its
positives, B buckets, C dimensions of a regression target.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from training.team import ALONE, Team

# A score that no other is below, and whose gradient is 0 rather than no number where all scores of a row are this.
LOWEST = -1e30


@dataclass(frozen=True)
class Shares:
    """Who else has scores of the matrix that a loss is of.

    Attributes:
        columns: those who have the rows' other columns.
        rows: those who have the columns' other rows.
    """

    columns: Team = ALONE
    rows: Team = ALONE


WHOLE = Shares()


def binary_cross_entropy(logits_QB: Tensor, targets_QB: Tensor, weights_B: Tensor | None = None) -> Tensor:
    """Sigmoid cross-entropy, summed over columns, each times its weight, and averaged over rows; targets in [0, 1]."""
    logits_QB = _at_least_single(logits_QB)
    return (
        F.binary_cross_entropy_with_logits(logits_QB, targets_QB, weight=weights_B, reduction="sum")
        / logits_QB.shape[0]
    )


def softmax_cross_entropy(logits_QRB: Tensor, classes_QR: Tensor) -> Tensor:
    """Softmax cross-entropy over the last axis, summed over repetitions and averaged over rows.

    MACH for one label a row: Medini et al., "Extreme Classification in Log Memory", NeurIPS 2019.
    """
    return F.cross_entropy(logits_QRB.flatten(0, 1), classes_QR.flatten(), reduction="sum") / logits_QRB.shape[0]


def decoupled_softmax(logits_QP: Tensor, targets_QP: Tensor, shares: Shares = WHOLE) -> Tensor:
    """Softmax loss whose denominator holds, for each positive, that positive and the negatives only.

    A row's loss is the average over its positives, weighted by their targets; the batch's loss is the average over rows
    that have a positive (0 when none has). A row without a negative contributes 0. Gupta et al., "Dual-Encoders for
    Extreme Multi-Label Classification" (DEXML), ICLR 2024, equation 5; used by UniDEC.

    Args:
        logits_QP: scaled scores.
        targets_QP: relevances; 0 marks a negative.
        shares: who else has scores.
    """
    logits_QP = _at_least_single(logits_QP)
    positive_QP = targets_QP > 0
    # The softplus of a row without negatives, and its gradient, are 0.
    masked_QP = logits_QP.masked_fill(positive_QP, LOWEST)
    queries, labels = positive_QP.nonzero(as_tuple=True)
    total_Q = shares.columns.logsumexp(masked_QP.logsumexp(dim=1))
    losses_J = F.softplus(total_Q[queries] - logits_QP[queries, labels])
    return _mean_over_positives(losses_J, queries, targets_QP[queries, labels], len(targets_QP), shares)


def supervised_contrastive(logits_QP: Tensor, targets_QP: Tensor, shares: Shares = WHOLE) -> Tensor:
    """Softmax loss over the whole pool: a row's positives compete with each other, too.

    A row's loss is the average over its positives, weighted by their targets; the batch's loss is the average over rows
    that have a positive (0 when none has). A row without a negative still has one unless its positive is alone. Khosla
    et al., "Supervised Contrastive Learning" (SupCon), NeurIPS 2020, equation 2; used by UniDEC.

    Args:
        logits_QP: scaled scores.
        targets_QP: relevances; 0 marks a negative.
        shares: who else has scores.
    """
    logits_QP = _at_least_single(logits_QP)
    queries, labels = targets_QP.nonzero(as_tuple=True)
    losses_J = shares.columns.logsumexp(logits_QP.logsumexp(dim=1))[queries] - logits_QP[queries, labels]
    return _mean_over_positives(losses_J, queries, targets_QP[queries, labels], len(targets_QP), shares)


def capped_cross_entropy(logits_QP: Tensor, targets_QP: Tensor, shares: Shares = WHOLE) -> Tensor:
    """Sigmoid cross-entropy of relevances, of which those above 1 count as 1; see `binary_cross_entropy`.

    Rows without a positive, and rows without a negative, count as any other.
    """
    logits_QP, targets_QP = _at_least_single(logits_QP), targets_QP.clamp(max=1)
    rows = shares.rows.sum(torch.tensor(len(logits_QP), device=logits_QP.device))
    return F.binary_cross_entropy_with_logits(logits_QP, targets_QP, reduction="sum") / rows


PoolLoss = Literal["decoupled_softmax", "supcon", "bce", "decoupled_softmax+bce", "supcon+bce"]
POOL_LOSSES: dict[str, Callable[[Tensor, Tensor, Shares], Tensor]] = {
    "decoupled_softmax": decoupled_softmax,
    "supcon": supervised_contrastive,
    "bce": capped_cross_entropy,
}


def pool_loss(name: PoolLoss, logits_QP: Tensor, targets_QP: Tensor, *, symmetric: bool, team: Team = ALONE) -> Tensor:
    """The loss of that name; of a name with a plus, the sum of both, as UniDEC adds its auxiliary BCE.

    Args:
        name: which.
        logits_QP: scaled scores.
        targets_QP: relevances; 0 marks a negative.
        symmetric: average the loss with that of the other direction, in which labels look for queries.
        team: those who have the pool's other labels.
    """
    directions = [(logits_QP, targets_QP, Shares(columns=team))]
    if symmetric:
        directions.append((logits_QP.T, targets_QP.T, Shares(rows=team)))
    losses = [torch.stack([POOL_LOSSES[part](*given) for part in name.split("+")]).sum() for given in directions]
    return torch.stack(losses).mean()


def _mean_over_positives(losses_J: Tensor, queries_J: Tensor, weights_J: Tensor, rows: int, shares: Shares) -> Tensor:
    """The weighted average of each row's losses, averaged over the rows that have one; 0 when none has.

    Positives are few: to look at them alone, and not at all of (Q, P), takes most of the cost away.
    """
    weights_Q = torch.zeros(rows, dtype=weights_J.dtype, device=weights_J.device).index_add(0, queries_J, weights_J)
    weights_Q = shares.columns.sum(weights_Q)
    shares_J = weights_J / weights_Q[queries_J]
    return (losses_J * shares_J).sum() / shares.rows.sum((weights_Q > 0).sum()).clamp(min=1)


def squared_error(predicted_QC: Tensor, target_QC: Tensor) -> Tensor:
    """Squared Euclidean distance, averaged over rows: what a truncated SVD minimises (DECLARE)."""
    return (predicted_QC - target_QC).square().sum(dim=1).mean()


def cosine_distance(predicted_QC: Tensor, target_QC: Tensor) -> Tensor:
    """One minus the cosine, averaged over rows: direction alone decides which rows inner-product recovery finds."""
    return (1 - F.cosine_similarity(predicted_QC, target_QC, dim=1)).mean()


def _at_least_single(logits: Tensor) -> Tensor:
    """Autocast may have made half floats of scores, whose sums and differences need more digits."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
