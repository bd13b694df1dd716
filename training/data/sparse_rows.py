"""Rows of `index:value` pairs behind a header of counts: the grammar that both XC sparse layouts share.

A row is split once and converted by NumPy, since wide data sets hold hundreds of values a row; only a row that fails
is looked at value by value, to name the culprit.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.data.files import DataError, excerpt, read_byte_lines, read_lines
from training.data.points import FLOAT32_MAX

NUMBER_CHARACTERS = b"0123456789+-.eE"
COUNT = re.compile(rb"\d{1,18}")
PAIR = re.compile(rb"\+?\d+:[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def read_header(file: Path, names: tuple[str, ...]) -> tuple[int, ...]:
    """Return the counts in the first line of `file`.

    Args:
        file: a sparse data file.
        names: what the counts count, in order.

    Raises:
        DataError: the first line is not that many whole numbers.
    """
    expected = f"a header with the numbers of {', '.join(names)}"
    for line, header in read_byte_lines(file):
        counts = header.split()
        if len(counts) != len(names) or not all(map(COUNT.fullmatch, counts)):
            raise DataError(file, line, expected, excerpt(header))
        return tuple(map(int, counts))
    raise DataError(file, 1, expected, "an empty file")


def agreed_count(counts: Mapping[Path, int], noun: str) -> int:
    """Return the count that the headers of several files agree on.

    Args:
        counts: what each file's header says, at least one file.
        noun: what is counted.

    Raises:
        DataError: two headers differ, or there is nothing.
    """
    first, expected = next(iter(counts.items()))
    if expected == 0:
        raise DataError(first, 1, f"at least one of the {noun}", "0")
    for file, count in counts.items():
        if count != expected:
            raise DataError(file, 1, f"{expected} {noun}, as '{first.name}' has", str(count))
    return expected


def read_rows(file: Path, count: int) -> Iterator[tuple[int, bytes]]:
    """Yield (line number, row) for the rows after the header.

    Args:
        file: a sparse data file.
        count: how many rows the header announces; empty lines after them are skipped.

    Raises:
        DataError: there are more or fewer rows.
    """
    found = -1
    for line, row in read_byte_lines(file):
        found += 1
        if 0 < found <= count:
            yield line, row
        elif found > count and row.strip():
            raise DataError(file, line, f"no more than {count} rows, as the header says", "another row")
    if found < count:
        raise DataError(file, None, f"{count} rows, as the header says", f"{found} rows")


def parse_pairs(file: Path, line: int, pairs: bytes) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Parse `index:value index:value ...`.

    Returns:
        Indices (T,) and values (T,), in the row's order; values may still be infinite.

    Raises:
        DataError: some token is no `index:value` with numbers on both sides.
    """
    tokens = pairs.split()
    row = b" ".join(tokens)
    # Without its numbers a well-formed row is ": : :".
    well_formed = row.translate(None, NUMBER_CHARACTERS) == (b": " * len(tokens))[:-1]
    numbers = row.replace(b":", b" ").split()
    try:
        if not well_formed or len(numbers) != 2 * len(tokens):
            raise ValueError("not index:value index:value ...")
        return np.array(numbers[::2], dtype=np.int64), np.array(numbers[1::2], dtype=np.float64)
    except (ValueError, OverflowError) as error:
        # A row whose tokens all look right has an index that fits no int64.
        culprit = next((token for token in tokens if not PAIR.fullmatch(token)), row)
        raise DataError(file, line, "index:value with finite numbers", excerpt(culprit)) from error


def parse_features(
    file: Path, line: int, pairs: bytes, feature_count: int
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Parse the features of one point and order them by index.

    Returns:
        Distinct indices (T,) ascending, and their values (T,).

    Raises:
        DataError: broken syntax, an index out of range or repeated, or a value that float32 cannot hold.
    """
    indices_T, values_T = parse_pairs(file, line, pairs)
    if not (indices_T[1:] > indices_T[:-1]).all():
        order = np.argsort(indices_T, kind="stable")
        indices_T, values_T = indices_T[order], values_T[order]
        repeated = indices_T[1:] == indices_T[:-1]
        if repeated.any():
            raise DataError(
                file, line, "every feature once in a row", f"feature {indices_T[1:][repeated][0]} more than once"
            )
    if indices_T.size and (indices_T[0] < 0 or indices_T[-1] >= feature_count):
        worst = indices_T[0] if indices_T[0] < 0 else indices_T[-1]
        raise DataError(file, line, f"feature indices from 0 to {feature_count - 1}", str(worst))
    finite = np.abs(values_T) <= FLOAT32_MAX
    if not finite.all():
        raise DataError(file, line, "feature values that fit into float32", str(values_T[~finite][0]))
    return indices_T.astype(np.int32), values_T.astype(np.float32)


def read_label_names(file: Path, label_count: int) -> list[str]:
    """Read the label ids from `labels.txt`, one a line; where there is no such file the row number is the id.

    Raises:
        DataError: an empty or repeated name, or another number of names than labels.
    """
    if not file.exists():
        return [str(row) for row in range(label_count)]
    first_lines: dict[str, int] = {}  # in the order of label rows
    for line, name in read_lines(file):
        if not name.strip():
            raise DataError(file, line, "a label name", "an empty line")
        first_line = first_lines.setdefault(name, line)
        if first_line != line:
            raise DataError(file, line, "every label name once", f"{excerpt(name)}, which line {first_line} has too")
    if len(first_lines) != label_count:
        raise DataError(
            file, None, f"{label_count} label names, as the header of the points says", str(len(first_lines))
        )
    return list(first_lines)
