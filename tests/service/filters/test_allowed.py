"""Bitmaps of labels say what sets of rows say."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from service.filters.allowed import Allowed, all_bits, bits_of


@given(st.integers(1, 200).flatmap(lambda count: st.tuples(st.just(count), st.lists(st.integers(0, count - 1)))))
def test_a_bitmap_is_a_set(drawn: tuple[int, list[int]]) -> None:
    count, rows = drawn
    allowed = Allowed.of_bits(bits_of(np.array(rows, dtype=np.int64), count))
    assert allowed.count == len(set(rows))
    assert allowed.rows().tolist() == sorted(set(rows))
    assert allowed.keeps(np.arange(count)).tolist() == [row in set(rows) for row in range(count)]
    others = Allowed.of_bits(all_bits(count) & ~allowed.bits_W)
    assert others.rows().tolist() == sorted(set(range(count)) - set(rows))


@given(st.integers(1, 200))
def test_all_labels_are_all(count: int) -> None:
    assert Allowed.of_bits(all_bits(count)).rows().tolist() == list(range(count))
