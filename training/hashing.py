"""Label to bucket tables: the only home of hash code.

MACH (Medini et al., NeurIPS 2019) assigns every label to one of B buckets, independently in each of R repetitions. The
table is stored with the model: a reader never hashes again, so no other language's signed modulo can send it to wrong
buckets.

Hashed buckets differ in size as balls thrown at random do; a balanced table has the same number of labels in each, give
or take one.
"""

from __future__ import annotations

import mmh3
import numpy as np
from numpy.typing import NDArray

FAMILY = "murmur3_x86_32"
KEY = "label row, uint32 little-endian"
BALANCED_FAMILY = "permutation"
BALANCED_KEY = "label row"


def bucket_table(label_count: int, repetitions: int, buckets: int, seed: int) -> NDArray[np.int32]:
    """Hash every label row into one bucket per repetition.

    Repetition r uses 32-bit Murmur3 with seed ``seed + r``, taken as unsigned, modulo ``buckets``.

    Returns:
        int32 of shape (R, L), values in [0, B).

    Raises:
        ValueError: a count is not positive.
    """
    _check_positive(label_count, repetitions, buckets)
    keys = np.arange(label_count, dtype="<u4").tobytes()
    rows = range(0, 4 * label_count, 4)
    table_RL = np.empty((repetitions, label_count), dtype=np.int32)
    for repetition in range(repetitions):
        hashes = (mmh3.hash(keys[row : row + 4], seed + repetition, signed=False) for row in rows)
        table_RL[repetition] = np.fromiter((value % buckets for value in hashes), dtype=np.int32, count=label_count)
    return table_RL


def balanced_table(label_count: int, repetitions: int, buckets: int, seed: int) -> NDArray[np.int32]:
    """Cut a random order of the labels into buckets of equal size, anew for each repetition.

    Repetition r draws its order from ``seed + r``; the first L / B labels of it are bucket 0, and so on.

    Returns:
        int32 of shape (R, L), values in [0, B); two buckets of a repetition differ by at most one label.

    Raises:
        ValueError: a count is not positive.
    """
    _check_positive(label_count, repetitions, buckets)
    chunks_L = (np.arange(label_count) * buckets // label_count).astype(np.int32)
    table_RL = np.empty((repetitions, label_count), dtype=np.int32)
    for repetition in range(repetitions):
        table_RL[repetition, np.random.default_rng(seed + repetition).permutation(label_count)] = chunks_L
    return table_RL


def _check_positive(label_count: int, repetitions: int, buckets: int) -> None:
    if min(label_count, repetitions, buckets) < 1:
        raise ValueError(
            f"label_count, repetitions and buckets must be positive, not {label_count}, {repetitions}, {buckets}"
        )
