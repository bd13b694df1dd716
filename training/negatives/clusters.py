"""Queries laid out in clusters: consecutive rows are alike, so that each other's labels are hard negatives for free.

Recursive balanced 2-means by cosine similarity, as UniDEC (WWW 2025) takes it from NGAME: Dahiya et al., "NGAME:
Negative Mining-aware Mini-batching for Extreme Classification", WSDM 2023.

Letters: N rows, D dimensions.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

MOST_ROUNDS = 20
# A round that raises the mean similarity of rows and their centres by less ends a split.
LEAST_GAIN = 1e-4


def cluster_order(vectors_ND: NDArray[np.float32], most: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """An order of the rows in which the clusters stand one after the other, and similar clusters side by side.

    All rows are split into two halves, these again, and so on until no part holds more than ``most`` rows; parts of one
    level differ in size by one row at most.

    Args:
        vectors_ND: rows; their lengths do not matter.
        most: rows of a cluster.
        rng: draws the centres that each split begins with.

    Returns:
        A permutation of the rows, int64 (N,).
    """
    order_N = np.arange(len(vectors_ND))
    lengths_N = np.linalg.norm(vectors_ND, axis=1, keepdims=True)
    laid_ND = vectors_ND / np.maximum(lengths_N, np.finfo(np.float32).tiny)
    ends = [0, len(order_N)]
    while max(np.diff(ends)) > most:
        for low, high in pairwise(ends):
            part = split(laid_ND[low:high], rng)
            laid_ND[low:high], order_N[low:high] = laid_ND[low:high][part], order_N[low:high][part]
        middles = [(low + high + 1) // 2 for low, high in pairwise(ends)]
        ends = sorted({*ends, *middles})
    return order_N


def split(vectors_ND: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.int64]:
    """Balanced 2-means: an order of the rows whose first half, the larger if N is odd, is one cluster.

    A round sorts the rows by how much nearer they are to the first centre than to the second, cuts in the middle, and
    moves the centres to the halves' means; ties go to the lower row.

    Args:
        vectors_ND: rows of unit length.
        rng: draws the first centres.
    """
    rows = len(vectors_ND)
    if rows < 2:
        return np.arange(rows)
    centres_2D = vectors_ND[rng.choice(rows, size=2, replace=False)]
    before = -np.inf
    for _ in range(MOST_ROUNDS):
        nearer_N = vectors_ND @ (centres_2D[0] - centres_2D[1])
        order_N = np.argsort(-nearer_N, kind="stable")
        sums = [vectors_ND[half].sum(axis=0) for half in np.split(order_N, [(rows + 1) // 2])]
        # The mean of unit vectors is as long as their mean similarity to its direction.
        lengths = [float(np.linalg.norm(total)) for total in sums]
        similarity = sum(lengths) / rows
        if similarity - before < LEAST_GAIN:
            break
        before = similarity
        centres_2D = np.stack([total / max(length, 1e-12) for total, length in zip(sums, lengths, strict=True)])
    return order_N


def cut(order_N: NDArray[np.int64], batch_size: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """The same order cut into batches at a drawn place, the batches shuffled; the one that is not full stays last.

    Args:
        order_N: see `cluster_order`.
        batch_size: rows of a batch.
        rng: draws where the cuts are and the order of batches.

    Returns:
        int64 (N,), to be cut at every ``batch_size`` rows.
    """
    turned_N = np.roll(order_N, rng.integers(len(order_N)))
    full = len(order_N) // batch_size * batch_size
    batches = turned_N[:full].reshape(-1, batch_size)
    return np.concatenate([rng.permutation(batches).reshape(-1), turned_N[full:]])
