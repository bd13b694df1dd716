from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.batching.queueing import Limits, Row, RowQueue, Ticket

IntegerRow = Row[int, int, int]


def request(*lengths: int) -> list[IntegerRow]:
    ticket: Ticket[int] = Ticket(1, len(lengths), deadline=1.0)
    return [Row(ticket, position, length, since=0.0) for position, length in enumerate(lengths)]


def prepared(rows: list[IntegerRow]) -> list[IntegerRow]:
    for row in rows:
        row.prepared = row.item
    return rows


def make_queue(batch_rows: int = 3, batch_tokens: int = 100) -> RowQueue[int, int, int]:
    return RowQueue(Limits(batch_rows, batch_tokens, queue_rows=10), length=lambda length: length)


def test_rows_are_counted_until_a_batch_takes_them() -> None:
    queue = make_queue()
    queue.add(request(1, 1, 1, 1))
    assert (len(queue), queue.may_prepare, queue.is_preparing, queue.ready_since) == (4, True, False, None)
    rows = queue.take_waiting(1)
    assert (len(rows), len(queue), queue.may_prepare, queue.is_preparing) == (4, 4, False, True)
    queue.hand_over(prepared(rows), 4)
    assert (len(queue), queue.is_preparing, queue.is_batch_full, queue.ready_since) == (4, False, True, 0.0)
    assert (len(queue.take_batch()), len(queue), queue.is_batch_full) == (3, 1, False)


def test_rows_that_preparation_does_not_give_back_are_gone() -> None:
    queue = make_queue()
    queue.add(request(1, 1))
    rows = queue.take_waiting(1)
    queue.hand_over(prepared(rows[1:]), 2)
    assert len(queue) == 1


@pytest.mark.parametrize(
    ("lengths", "batch"),
    [
        ((5, 5, 5, 5), (5, 5, 5)),
        ((10, 10, 9), (10, 10)),
        ((25,), (25,)),
        ((3, 25), (3,)),
        ((1, 9, 2), (1, 2)),
        ((9, 1, 8, 2, 9), (9, 9)),
        ((0, 0, 0), (0, 0, 0)),
    ],
)
def test_a_batch_is_the_oldest_row_and_those_of_like_length_within_its_padded_tokens(
    lengths: tuple[int, ...], batch: tuple[int, ...]
) -> None:
    queue = make_queue(batch_tokens=20)
    queue.hand_over(prepared(request(*lengths)), 0)
    assert tuple(row.item for row in queue.take_batch()) == batch


@pytest.mark.parametrize(
    ("padding", "batch"), [(0, (5, 5)), (2, (5, 5, 4)), (50, (5, 5, 4, 9)), (math.inf, (5, 5, 4, 9))]
)
def test_a_row_brings_no_more_padding_than_another_batch_would_cost(padding: float, batch: tuple[int, ...]) -> None:
    queue: RowQueue[int, int, int] = RowQueue(
        Limits(9, 1000, queue_rows=10, padding_tokens=padding), length=lambda length: length
    )
    queue.hand_over(prepared(request(5, 5, 4, 9)), 0)
    assert tuple(row.item for row in queue.take_batch()) == batch


@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=20),
    st.integers(1, 6),
    st.integers(1, 80),
    st.sampled_from([0, 5, 40, math.inf]),
)
def test_every_batch_has_the_oldest_row_and_every_row_one_batch(
    lengths: list[int], batch_rows: int, batch_tokens: int, padding: float
) -> None:
    rows = prepared(request(*lengths))
    limits = Limits(batch_rows, batch_tokens, queue_rows=20, padding_tokens=padding)
    queue: RowQueue[int, int, int] = RowQueue(limits, length=lambda length: length)
    queue.hand_over(rows, 0)
    left = list(rows)
    while left:
        batch = queue.take_batch()
        assert batch[0] is left[0]
        padded = max(row.item for row in batch) * len(batch)
        assert len(batch) <= batch_rows
        assert len(batch) == 1 or padded <= batch_tokens
        assert padded - sum(row.item for row in batch) <= padding * max(1, len(batch) - 1)
        left = [row for row in left if row not in batch]
    assert queue.take_batch() == []


@pytest.mark.parametrize(("runners", "share", "batch"), [(1, 5, 3), (2, 3, 3), (3, 2, 2), (9, 1, 1)])
def test_runners_share_what_is_there(runners: int, share: int, batch: int) -> None:
    limits = Limits(3, 100, queue_rows=10, runners=runners)
    queue: RowQueue[int, int, int] = RowQueue(limits, length=lambda length: length)
    queue.add(request(1, 1, 1, 1, 1))
    assert len(queue.take_waiting(runners)) == share
    queue = RowQueue(limits, length=lambda length: length)
    queue.hand_over(prepared(request(1, 1, 1, 1, 1)), 0)
    assert len(queue.take_batch()) == batch


def test_two_batches_at_most_are_made_ready() -> None:
    queue = make_queue()
    queue.hand_over(prepared(request(1)), 0)
    queue.add(request(*[1] * 9))
    assert len(queue.take_waiting(1)) == 5
    assert not queue.may_prepare
    assert queue.take_waiting(1) == []


def test_removing_a_request_leaves_the_others() -> None:
    queue = make_queue()
    first, second = request(1, 2), request(3)
    queue.add(second)
    queue.hand_over(prepared(first), 0)
    queue.add(request(4))
    assert queue.remove(first[0].ticket) == 2
    assert queue.remove(first[0].ticket) == 0
    assert [row.item for row in queue.take_waiting(1)] == [3, 4]
