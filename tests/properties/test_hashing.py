"""Bucket tables. Hashed: Murmur3 of the label row, unsigned, seeded by repetition; pinned, because artifacts live long.

Balanced: a random order of the labels for each repetition, in chunks of equal size.
"""

from __future__ import annotations

import struct

import mmh3
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.hashing import balanced_table, bucket_table


@given(
    labels=st.integers(1, 60),
    repetitions=st.integers(1, 5),
    buckets=st.integers(1, 5000),
    seed=st.integers(0, 2**32 - 6),
)
def test_every_cell_is_the_unsigned_hash_of_its_row(labels: int, repetitions: int, buckets: int, seed: int) -> None:
    table_RL = bucket_table(labels, repetitions, buckets, seed)
    assert table_RL.dtype == np.int32
    for repetition in range(repetitions):
        for label in range(labels):
            digest = mmh3.hash(struct.pack("<I", label), seed + repetition, signed=False)
            assert table_RL[repetition, label] == digest % buckets


def test_golden_values() -> None:
    # Murmur3 of four zero bytes with seed 0 is 0x2362F9DE: the reference implementation's well-known value.
    assert bucket_table(1, 1, 2**31 - 1, 0)[0, 0] == 0x2362F9DE
    assert bucket_table(8, 3, 10, 7).tolist() == [
        [3, 7, 0, 9, 5, 1, 8, 6],
        [8, 9, 5, 1, 2, 3, 0, 5],
        [0, 5, 4, 9, 4, 1, 7, 1],
    ]


def test_a_hash_above_the_signed_range_stays_positive() -> None:
    high = next(row for row in range(100) if mmh3.hash(struct.pack("<I", row), 0) < 0)
    unsigned = mmh3.hash(struct.pack("<I", high), 0) + 2**32
    assert bucket_table(high + 1, 1, 1000, 0)[0, high] == unsigned % 1000


def test_repetitions_and_seeds_hash_differently() -> None:
    table_RL = bucket_table(2000, 4, 64, 0)
    for left in range(4):
        for right in range(left):
            assert np.mean(table_RL[left] == table_RL[right]) < 3 / 64
    assert np.mean(table_RL[0] == bucket_table(2000, 1, 64, 1)[0]) < 3 / 64
    np.testing.assert_array_equal(table_RL[1:], bucket_table(2000, 3, 64, 1))


def test_buckets_are_filled_evenly() -> None:
    labels, buckets = 64_000, 64
    counts = np.bincount(bucket_table(labels, 1, buckets, 3)[0], minlength=buckets)
    chi_square = float(((counts - labels / buckets) ** 2).sum() / (labels / buckets))
    # 63 degrees of freedom: mean 63, deviation 11; both too uneven and too even would be wrong.
    assert 25 < chi_square < 120


@given(
    labels=st.integers(1, 60),
    repetitions=st.integers(1, 5),
    buckets=st.integers(1, 70),
    seed=st.integers(0, 2**31 - 1),
)
def test_balanced_buckets_differ_by_one_label_at_most(labels: int, repetitions: int, buckets: int, seed: int) -> None:
    table_RL = balanced_table(labels, repetitions, buckets, seed)
    assert (table_RL.dtype, table_RL.shape) == (np.int32, (repetitions, labels))
    for buckets_L in table_RL:
        counts = np.bincount(buckets_L, minlength=buckets)
        assert (len(counts), counts.sum()) == (buckets, labels)
        assert counts.max() - counts.min() <= 1


def test_balanced_repetitions_and_seeds_differ_as_random_ones() -> None:
    table_RL = balanced_table(2000, 4, 64, 0)
    np.testing.assert_array_equal(table_RL, balanced_table(2000, 4, 64, 0))
    np.testing.assert_array_equal(table_RL[1:], balanced_table(2000, 3, 64, 1))
    others = table_RL[1:]
    assert all(np.mean(table_RL[0] == other) < 3 / 64 for other in others)


@pytest.mark.parametrize("counts", [(0, 1, 1), (1, 0, 1), (1, 1, 0), (-1, 1, 1)])
def test_counts_must_be_positive(counts: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match=r"must be positive, not .*0|-1"):
        bucket_table(*counts, seed=0)
    with pytest.raises(ValueError, match=r"must be positive, not .*0|-1"):
        balanced_table(*counts, seed=0)
