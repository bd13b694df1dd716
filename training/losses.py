"""Losses: pure functions of scores and targets, one citation each.

Letters: Q queries in a batch, P labels in a pool, J pairs of a query and one of its
positives, B buckets, C dimensions of a regression target.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F


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


def decoupled_softmax(logits_QP: Tensor, targets_QP: Tensor) -> Tensor:
    """Softmax loss whose denominator holds, for each positive, that positive and the negatives only.

    A row's loss is the average over its positives, weighted by their targets; the batch's loss is the average over rows
    that have a positive (0 when none has). A row without a negative contributes 0. Gupta et al., "Dual-Encoders for
    Extreme Multi-Label Classification" (DEXML), ICLR 2024, equation 5; used by UniDEC.

    Args:
        logits_QP: scaled scores.
        targets_QP: relevances; 0 marks a negative.
    """
    logits_QP = _at_least_single(logits_QP)
    positive_QP = targets_QP > 0
    has_negative_Q = ~positive_QP.all(dim=1)
    # A row without negatives would turn into -inf - (-inf) in the backward pass: it keeps its logits and is zeroed
    # below.
    masked_QP = logits_QP.masked_fill(positive_QP & has_negative_Q[:, None], -torch.inf)
    queries, labels = positive_QP.nonzero(as_tuple=True)
    losses_J = F.softplus(masked_QP.logsumexp(dim=1)[queries] - logits_QP[queries, labels]) * has_negative_Q[queries]
    return _mean_over_positives(losses_J, queries, targets_QP[queries, labels], len(targets_QP))


def supervised_contrastive(logits_QP: Tensor, targets_QP: Tensor) -> Tensor:
    """Softmax loss over the whole pool: a row's positives compete with each other, too.

    A row's loss is the average over its positives, weighted by their targets; the batch's loss is the average over rows
    that have a positive (0 when none has). A row without a negative still has one unless its positive is alone. Khosla
    et al., "Supervised Contrastive Learning" (SupCon), NeurIPS 2020, equation 2; used by UniDEC.

    Args:
        logits_QP: scaled scores.
        targets_QP: relevances; 0 marks a negative.
    """
    logits_QP = _at_least_single(logits_QP)
    queries, labels = targets_QP.nonzero(as_tuple=True)
    losses_J = logits_QP.logsumexp(dim=1)[queries] - logits_QP[queries, labels]
    return _mean_over_positives(losses_J, queries, targets_QP[queries, labels], len(targets_QP))


def capped_cross_entropy(logits_QP: Tensor, targets_QP: Tensor) -> Tensor:
    """Sigmoid cross-entropy of relevances, of which those above 1 count as 1; see `binary_cross_entropy`.

    Rows without a positive, and rows without a negative, count as any other.
    """
    return binary_cross_entropy(logits_QP, targets_QP.clamp(max=1))


PoolLoss = Literal["decoupled_softmax", "supcon", "bce", "decoupled_softmax+bce", "supcon+bce"]
POOL_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "decoupled_softmax": decoupled_softmax,
    "supcon": supervised_contrastive,
    "bce": capped_cross_entropy,
}


def pool_loss(name: PoolLoss, logits_QP: Tensor, targets_QP: Tensor, *, symmetric: bool) -> Tensor:
    """The loss of that name; of a name with a plus, the sum of both, as UniDEC adds its auxiliary BCE.

    Args:
        name: which.
        logits_QP: scaled scores.
        targets_QP: relevances; 0 marks a negative.
        symmetric: average the loss with that of the other direction, in which labels look for queries.
    """
    if symmetric:
        directions = ((logits_QP, targets_QP), (logits_QP.T, targets_QP.T))
        return torch.stack([pool_loss(name, *direction, symmetric=False) for direction in directions]).mean()
    return torch.stack([POOL_LOSSES[part](logits_QP, targets_QP) for part in name.split("+")]).sum()


def _mean_over_positives(losses_J: Tensor, queries_J: Tensor, weights_J: Tensor, rows: int) -> Tensor:
    """The weighted average of each row's losses, averaged over the rows that have one; 0 when none has.

    Positives are few: to look at them alone, and not at all of (Q, P), takes most of the cost away.
    """
    weights_Q = torch.zeros(rows, dtype=weights_J.dtype, device=weights_J.device).index_add(0, queries_J, weights_J)
    shares_J = weights_J / weights_Q[queries_J]
    return (losses_J * shares_J).sum() / (weights_Q > 0).sum().clamp(min=1)


def squared_error(predicted_QC: Tensor, target_QC: Tensor) -> Tensor:
    """Squared Euclidean distance, averaged over rows: what a truncated SVD minimises (DECLARE)."""
    return (predicted_QC - target_QC).square().sum(dim=1).mean()


def cosine_distance(predicted_QC: Tensor, target_QC: Tensor) -> Tensor:
    """One minus the cosine, averaged over rows: direction alone decides which rows inner-product recovery finds."""
    return (1 - F.cosine_similarity(predicted_QC, target_QC, dim=1)).mean()


def _at_least_single(logits: Tensor) -> Tensor:
    """Autocast may have made half floats of scores, whose sums and differences need more digits."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
