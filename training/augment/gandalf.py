"""Gandalf: every label's text becomes a training point whose soft targets are the labels that occur together with it.

With G = YᵀY counted over the training rows, the point of label i has target G_ij / G_jj for label j, the share of j's
points that i has too, where that exceeds a threshold, and 1 for label i itself. Kharbanda et al., "Learning Label-Label
Correlations in Extreme Multi-Label Classification via Label Features" (Gandalf), KDD 2024.

Letters: N training rows, L labels, V tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy.sparse import csr_array, vstack

from training.data.batches import Rows
from training.data.dataset import Dataset, UnsuitableData
from training.twins import have_their_labels, rows_with_label_texts

# Co-occurrences counted at a time, before the small ones are dropped: G as a whole need not fit into memory.
COUNTED_AT_ONCE = 1 << 24


class GandalfConfig(BaseModel):
    """Options of Gandalf."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Literal["gandalf"] = "gandalf"
    threshold: float = Field(
        default=0.1, ge=0, lt=1, allow_inf_nan=False, description="soft targets must exceed it (delta of the paper)"
    )
    most_targets: int = Field(default=50, ge=0, description="soft targets of a label, the largest, beside its own 1")
    own_target: bool | None = Field(
        default=None,
        description="whether a label's text has the label itself as target; None: unless training points that have "
        "some label's text mostly lack that label",
    )
    fraction: float = Field(
        default=1.0, gt=0, le=1, description="share of the labels that become points, the rarest first"
    )


def gandalf(dataset: Dataset, config: GandalfConfig) -> Dataset:
    """The data set with label texts appended to its training rows; frequencies and validation rows stay as they are.

    Left out are labels whose text has no known token, labels without a target, and labels whose text is a training
    point's: that point has its true labels.

    Raises:
        UnsuitableData: the labels have no texts.
    """
    if dataset.label_bags is None:
        raise UnsuitableData(
            f"{dataset.card.name}: gandalf turns label texts into training points, and this data set has none"
        )
    twins = rows_with_label_texts(dataset.train, dataset.label_bags)
    own_target = config.own_target
    if own_target is None:
        own_target = have_their_labels(dataset.train, twins)
    labels = _rarest_first(dataset, set(twins), config.fraction)
    targets_LL = soft_targets(
        dataset.train.targets, labels, config.threshold, config.most_targets, own_target=own_target
    )
    labelled = np.flatnonzero(np.diff(targets_LL.indptr))
    train, chosen = dataset.train, labels[labelled]
    inputs = vstack([train.inputs, dataset.label_bags[chosen]], format="csr")
    targets = vstack([train.targets, targets_LL[labelled]], format="csr")
    words = None
    if train.words is not None and dataset.label_words is not None:
        words = csr_array(vstack([train.words, dataset.label_words[chosen]], format="csr"))
    points = np.concatenate([dataset.points, -1 - chosen])
    return replace(dataset, train=Rows(csr_array(inputs), csr_array(targets), words), points=points)


def soft_targets(
    targets_NL: csr_array, labels: NDArray[np.int64], threshold: float, most_targets: int, *, own_target: bool
) -> csr_array:
    """The targets of the given labels' points.

    Args:
        targets_NL: training rows; a relevance above 0 makes a label theirs.
        labels: rising label rows.
        threshold: soft targets must exceed it.
        most_targets: of a label, the largest; ties go to the lower label row.
        own_target: whether a label has target 1 for itself, beside these.

    Returns:
        float32 CSR (len(labels), L) with sorted indices.
    """
    N, L = targets_NL.shape
    ones = np.ones(targets_NL.nnz, dtype=np.int64)
    member_NL = csr_array((ones, targets_NL.indices, targets_NL.indptr), shape=(N, L))
    counts_L = np.bincount(targets_NL.indices, minlength=L)
    member_LN = csr_array(member_NL.T.tocsr())[labels]
    # Each of a label's points brings as many co-occurrences as it has labels.
    costs = member_LN @ np.diff(member_NL.indptr)
    parts: list[csr_array] = [csr_array(np.empty((0, L), dtype=np.float32))]
    for low, high in _ranges(costs, COUNTED_AT_ONCE):
        together = (member_LN[low:high] @ member_NL).tocoo()
        own = labels[low:high]
        shares = together.data / counts_L[together.col]
        kept = (shares > threshold) & (together.col != own[together.row])
        rows, columns, values = _largest(together.row[kept], together.col[kept], shares[kept], most_targets)
        if own_target:
            rows = np.concatenate([rows, np.arange(high - low)])
            columns = np.concatenate([columns, own])
            values = np.concatenate([values, np.ones(high - low)])
        part = csr_array((values.astype(np.float32), (rows, columns)), shape=(high - low, L))
        part.sort_indices()
        parts.append(part)
    return csr_array(vstack(parts, format="csr"))


def _rarest_first(dataset: Dataset, known: set[int], fraction: float) -> NDArray[np.int64]:
    """Rising rows of the labels that become points: those with a readable text that is no training point already."""
    assert dataset.label_bags is not None
    readable = np.flatnonzero(np.diff(dataset.label_bags.indptr))
    if not len(readable):
        raise UnsuitableData(f"{dataset.card.name}: no label text has a known token")
    news = np.array([label for label in readable.tolist() if label not in known], dtype=np.int64)
    counts = np.bincount(dataset.train.targets.indices, minlength=dataset.label_count)[news]
    return np.sort(news[np.argsort(counts, kind="stable")[: round(fraction * len(news))]])


def _largest(
    rows: NDArray[np.int32], columns: NDArray[np.int32], values: NDArray[np.float64], count: int
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float64]]:
    """The ``count`` largest entries of each row, ties by column."""
    order = np.lexsort((columns, -values, rows))
    rows, columns, values = rows[order], columns[order], values[order]
    ranks = np.arange(len(rows)) - np.searchsorted(rows, rows)
    kept = ranks < count
    return rows[kept], columns[kept], values[kept]


def _ranges(costs: NDArray[np.int64], most: int) -> Iterator[tuple[int, int]]:
    """Cut 0 .. len(costs) into ranges whose costs sum to at most ``most``, or that hold one element."""
    ends = np.cumsum(costs)
    low = 0
    while low < len(costs):
        before = ends[low] - costs[low]
        high = max(low + 1, int(np.searchsorted(ends, before + most, side="right")))
        yield low, high
        low = high
