"""Losses: pure functions of scores and targets, one citation each.

Letters: Q queries in a batch, P labels in a pool, C dimensions of a regression target.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def binary_cross_entropy(logits_QB: Tensor, targets_QB: Tensor) -> Tensor:
    """Sigmoid cross-entropy, summed over columns and averaged over rows; targets in [0, 1]."""
    logits_QB = _at_least_single(logits_QB)
    return F.binary_cross_entropy_with_logits(logits_QB, targets_QB, reduction="sum") / logits_QB.shape[0]


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
    negatives_Q = masked_QP.logsumexp(dim=1)
    losses_QP = F.softplus(negatives_Q[:, None] - logits_QP) * targets_QP * has_negative_Q[:, None]
    weights_Q = targets_QP.sum(dim=1)
    rows_Q = losses_QP.sum(dim=1) / weights_Q.clamp(min=torch.finfo(weights_Q.dtype).tiny)
    return rows_Q.sum() / (weights_Q > 0).sum().clamp(min=1)


def squared_error(predicted_QC: Tensor, target_QC: Tensor) -> Tensor:
    """Squared Euclidean distance, averaged over rows: what a truncated SVD minimises (DECLARE)."""
    return (predicted_QC - target_QC).square().sum(dim=1).mean()


def cosine_distance(predicted_QC: Tensor, target_QC: Tensor) -> Tensor:
    """One minus the cosine, averaged over rows: direction alone decides which rows inner-product recovery finds."""
    return (1 - F.cosine_similarity(predicted_QC, target_QC, dim=1)).mean()


def _at_least_single(logits: Tensor) -> Tensor:
    """Autocast may have made half floats of scores, whose sums and differences need more digits."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
