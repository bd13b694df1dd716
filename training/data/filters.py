"""Filter files: `row label` pairs that count neither as training targets nor as predictions.

Data sets whose labels are themselves points (a page recommends pages) list here each point's own label.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.data.files import DataError, excerpt, read_lines
from training.data.points import Point

FILE_NAMES = {"trn": "filter_labels_train.txt", "tst": "filter_labels_test.txt"}


def read_filter(file: Path, label_count: int) -> NDArray[np.int64]:
    """Read the pairs of one filter file.

    Returns:
        Pairs (row, label) (n, 2), pair i from line i + 1; none when the file is empty or absent.

    Raises:
        DataError: a line is no pair of row numbers, or its label is out of range.
    """
    numbers = array("q")
    if not file.exists():
        return np.empty((0, 2), dtype=np.int64)
    for line, text in read_lines(file):
        try:
            row, label = map(int, text.split())
            numbers.extend((row, label))
        except (ValueError, OverflowError) as error:
            raise DataError(file, line, "a point's row number and a label's", excerpt(text)) from error
        if row < 0 or not 0 <= label < label_count:
            expected = f"a row of at least 0 and a label row from 0 to {label_count - 1}"
            raise DataError(file, line, expected, excerpt(text))
    return np.array(numbers, dtype=np.int64).reshape(-1, 2)


def check_rows(file: Path, pairs: NDArray[np.int64], point_count: int) -> None:
    """Check the rows of a filter file against the number of points, known once they have been streamed.

    Raises:
        DataError: a pair names a row that the split does not have.
    """
    beyond = np.flatnonzero(pairs[:, 0] >= point_count)
    if beyond.size:
        first = int(beyond[0])
        raise DataError(file, first + 1, f"rows from 0 to {point_count - 1}", str(pairs[first, 0]))


def remove_pairs(points: Iterable[Point], pairs: NDArray[np.int64]) -> Iterator[Point]:
    """Yield the points without the labels that `pairs` (n, 2) names for their rows."""
    pairs = pairs[np.argsort(pairs[:, 0], kind="stable")]
    rows, labels = pairs[:, 0].tolist(), pairs[:, 1]
    start = 0
    for row, point in enumerate(points):
        end = start
        while end < len(rows) and rows[end] == row:
            end += 1
        if end > start:
            kept = ~np.isin(point.labels, labels[start:end])
            point = replace(point, labels=point.labels[kept], relevances=point.relevances[kept])
        start = end
        yield point
