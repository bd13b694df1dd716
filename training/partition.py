"""Learned re-partitioning for MACH: labels move to buckets that the model already finds for their training points.

Gupta, Medini, Shrivastava and Smola, "BLISS: A Billion scale Index using Iterative Re-partitioning", KDD 2022: start
from hashed buckets; every few epochs put each label into the least loaded of the K buckets that the network scores
highest for it, then train on.

A label's score for a bucket is the mean of the bucket's logit over the label's training points. The head is linear, so
that is the head applied to the mean of their hidden vectors: no array of labels by repetitions by buckets is needed.
Where the loss is a softmax, mean logits order the buckets of a label as mean log-probabilities do.

Letters: Q rows of a batch, N training rows, D hidden units, L labels (of a block), R repetitions, B buckets, K
candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor

from training.data.batches import Rows

Encode = Callable[[csr_array], Tensor]

FAMILY = "learned"
KEY = "label row"

ROWS_AT_ONCE = 1024
# Numbers of a block of labels that are held at a time: 64 MB.
NUMBERS_AT_ONCE = 1 << 24


@torch.no_grad()
def best_buckets(
    encode: Encode, head: Callable[[Tensor], Tensor], rows: Rows, shape: tuple[int, int], count: int
) -> NDArray[np.int64]:
    """The buckets that score highest for each label's training points.

    Rows are encoded once for each block of labels that they have a label in, so at most once a label.

    Args:
        encode: inputs (Q, V) to hidden vectors (Q, D).
        head: hidden vectors to bucket logits (Q, R * B); linear.
        rows: training rows.
        shape: R and B.
        count: K, at most B.

    Returns:
        (R, L, K), best first; arbitrary for labels without a training row.
    """
    repetitions, buckets = shape
    labels_LN = csr_array(rows.targets.T)
    best_RLK = np.zeros((repetitions, labels_LN.shape[0], count), dtype=np.int64)
    for low, means_LD in _means(encode, rows.inputs, labels_LN, repetitions * buckets):
        logits_LRB = head(means_LD).view(-1, repetitions, buckets)
        best_LRK = logits_LRB.topk(count, dim=2).indices
        best_RLK[:, low : low + len(means_LD)] = best_LRK.permute(1, 0, 2).cpu().numpy()
    return best_RLK


def least_loaded(
    best_LK: NDArray[np.int64], counts_L: NDArray[np.int64], current_L: NDArray[np.int64], buckets: int
) -> NDArray[np.int64]:
    """Put every label into one of its candidate buckets, the one with the fewest labels so far.

    The most frequent labels choose first, since most depends on them; of equally loaded buckets the better one is
    taken. A label without training rows keeps its bucket: nothing is known of it.

    Args:
        best_LK: candidates of each label in one repetition, best first.
        counts_L: training rows of each label.
        current_L: its bucket.
        buckets: B.

    Returns:
        int64 (L,).
    """
    assigned_L = current_L.copy()
    loads = np.bincount(current_L[counts_L == 0], minlength=buckets).tolist()
    order = np.argsort(-counts_L, kind="stable")
    for label in order[: np.count_nonzero(counts_L)].tolist():
        bucket = min(best_LK[label].tolist(), key=loads.__getitem__)
        loads[bucket] += 1
        assigned_L[label] = bucket
    return assigned_L


def _means(encode: Encode, inputs_NV: csr_array, labels_LN: csr_array, outputs: int) -> Iterator[tuple[int, Tensor]]:
    """First label of each block, and the mean hidden vectors of the block's labels (L, D), weighted by relevance."""
    example_1D = encode(inputs_NV[:1])
    width = example_1D.shape[1]
    step = max(1, NUMBERS_AT_ONCE // max(width, outputs))
    for low in range(0, labels_LN.shape[0], step):
        block_LN = labels_LN[low : low + step]
        touched = np.unique(block_LN.indices)
        members_LN = block_LN[:, touched]
        sums_LD = np.zeros((block_LN.shape[0], width), dtype=np.float32)
        for first in range(0, len(touched), ROWS_AT_ONCE):
            chosen = slice(first, first + ROWS_AT_ONCE)
            sums_LD += members_LN[:, chosen] @ encode(inputs_NV[touched[chosen]]).cpu().numpy()
        totals_L1 = np.asarray(members_LN.sum(axis=1))[:, None]
        means_LD = sums_LD / np.maximum(totals_L1, np.finfo(np.float32).tiny)
        yield low, torch.from_numpy(means_LD).to(example_1D.device)
