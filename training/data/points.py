"""The point: what every layout yields, and the checks on its labels that all layouts share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.data.files import DataError, excerpt

FLOAT32_MAX = float(np.finfo(np.float32).max)
FLOAT32_TINY = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True, slots=True)
class Point:
    """One row of a split: a text or a bag of features, and its labels.

    Attributes:
        text: the text, or None for feature data.
        indices: (T,) int32 distinct feature indices, ascending, or None for text data.
        values: (T,) float32 finite values of these features, or None for text data.
        labels: (K,) int32 distinct label rows, ascending; empty for a point without labels.
        relevances: (K,) float32 weights of these labels, each above 0; 1 where the data states none.
    """

    text: str | None
    indices: NDArray[np.int32] | None
    values: NDArray[np.float32] | None
    labels: NDArray[np.int32]
    relevances: NDArray[np.float32]


def make_targets(
    file: Path, line: int, labels: Sequence[int], relevances: Sequence[float] | None, label_count: int
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Check the labels of one point and order them by label row.

    Label lists are short (a handful), so plain Python is several times faster here than NumPy.

    Args:
        file: where the point stands, for the error.
        line: its line.
        labels: label rows in the file's order.
        relevances: their weights, or None for 1 each.
        label_count: how many labels there are.

    Returns:
        Label rows (K,) ascending, and their weights (K,).

    Raises:
        DataError: a label out of range or repeated, another number of weights than labels, or a weight that is not a
            finite number above 0.
    """
    ordered = sorted(labels)
    if ordered and (ordered[0] < 0 or ordered[-1] >= label_count):
        worst = ordered[0] if ordered[0] < 0 else ordered[-1]
        raise DataError(file, line, f"label rows from 0 to {label_count - 1}", excerpt(worst))
    if len(set(ordered)) < len(ordered):
        repeated = next(label for label, after in pairwise(ordered) if label == after)
        raise DataError(file, line, "every label once in a point", f"label {repeated} more than once")
    labels_K = np.array(ordered, dtype=np.int32)
    if relevances is None:
        return labels_K, np.ones(len(ordered), dtype=np.float32)
    if len(relevances) != len(labels):
        raise DataError(file, line, f"as many relevances as labels ({len(labels)})", str(len(relevances)))
    for relevance in relevances:
        if not FLOAT32_TINY <= relevance <= FLOAT32_MAX:  # false for NaN too
            raise DataError(file, line, "finite relevances above 0", excerpt(relevance))
    relevances_K = np.array(relevances, dtype=np.float32)
    return labels_K, relevances_K if ordered == list(labels) else relevances_K[np.argsort(labels)]
