"""MACH's inverted lists: of every bucket its labels, and with each label its bucket in one other repetition.

Repetitions stand in pairs, and each is the other's partner; the last of an odd number is its own. Labels are written as
steps from one to the next, in the type of bucket numbers: the mean step is B, so that few do not fit. One that does not
is made of entries with the largest number of that type, which are no labels, and a last one that is.

Letters: R repetitions, B buckets, L labels, N entries of one repetition's lists.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray


def pairs(repetitions: int) -> list[range]:
    """The repetitions that stand together: two each, the last of an odd number alone."""
    return [range(first, min(first + 2, repetitions)) for first in range(0, repetitions, 2)]


def partner(repetition: int, repetitions: int) -> int:
    """The other repetition of a pair."""
    return min(repetition ^ 1, repetitions - 1)


def columns_of_pair(buckets_LR: NDArray[Any], repetitions: range) -> Iterator[tuple[int, NDArray[Any], NDArray[Any]]]:
    """Each repetition of a pair, with the buckets of all labels and those in its partner, (L,) each, copied once."""
    columns = {repetition: np.ascontiguousarray(buckets_LR[:, repetition]) for repetition in repetitions}
    for repetition in repetitions:
        yield repetition, columns[repetition], columns[partner(repetition, buckets_LR.shape[1])]


def columns_with_partners(buckets_LR: NDArray[Any]) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Of each repetition in turn the buckets of all labels and those in its partner, (L,) each, copied once a pair."""
    for pair in pairs(buckets_LR.shape[1]):
        for _, own_L, partners_L in columns_of_pair(buckets_LR, pair):
            yield own_L, partners_L


def inverted_lists(
    buckets_L: NDArray[Any], partners_L: NDArray[Any], buckets: int
) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.int64]]:
    """The lists of one repetition; needs some 50 bytes of memory a label.

    Args:
        buckets_L: bucket of each label, unsigned.
        partners_L: its bucket in the partner.
        buckets: B.

    Returns:
        Steps (N,) by bucket, then label, the first of a bucket from label 0; buckets in the partner (N,), 0 where no
        label is; and where each bucket's entries begin, and the end (B + 1,).
    """
    far = np.iinfo(buckets_L.dtype).max
    labels_L = np.argsort(buckets_L, kind="stable")
    ends_B = np.cumsum(np.bincount(buckets_L, minlength=buckets))
    steps_L = np.diff(labels_L, prepend=0)
    firsts = np.concatenate([[0], ends_B[ends_B < len(labels_L)]])
    steps_L[firsts] = labels_L[firsts]
    places_L = np.cumsum(steps_L // far + 1)  # one further than where the label stands
    steps_N = np.full(places_L[-1], far, dtype=buckets_L.dtype)
    partners_N = np.zeros(len(steps_N), dtype=buckets_L.dtype)
    steps_N[places_L - 1] = steps_L % far
    partners_N[places_L - 1] = partners_L[labels_L]
    return steps_N, partners_N, np.concatenate([[0], places_L])[np.concatenate([[0], ends_B])]
