from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.queueing import Limits, Row, RowQueue, Ticket

IntegerRow = Row[int, int, int]


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def request(loop: asyncio.AbstractEventLoop, *lengths: int) -> list[IntegerRow]:
    ticket: Ticket[int] = Ticket(loop.create_future(), len(lengths), deadline=1.0)
    return [Row(ticket, position, length, since=0.0) for position, length in enumerate(lengths)]


def prepared(rows: list[IntegerRow]) -> list[IntegerRow]:
    for row in rows:
        row.prepared = row.item
    return rows


def make_queue(batch_rows: int = 3, batch_tokens: int = 100) -> RowQueue[int, int, int]:
    return RowQueue(Limits(batch_rows, batch_tokens, queue_rows=10), length=lambda length: length)


def test_rows_are_counted_until_a_batch_takes_them(loop: asyncio.AbstractEventLoop) -> None:
    queue = make_queue()
    queue.add(request(loop, 1, 1, 1, 1))
    assert (len(queue), queue.has_unprepared, queue.ready_since) == (4, True, None)
    rows = queue.take_ahead()
    assert (len(rows), len(queue)) == (3, 4)
    queue.hand_over(prepared(rows), 3)
    assert (len(queue), queue.is_batch_full, queue.ready_since) == (4, True, 0.0)
    assert queue.take_ahead() == []
    assert (len(queue.take_batch()), len(queue), queue.has_unprepared) == (3, 1, True)


def test_rows_that_the_preparer_does_not_bring_back_are_gone(loop: asyncio.AbstractEventLoop) -> None:
    queue = make_queue()
    queue.add(request(loop, 1, 1))
    rows = queue.take_ahead()
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
    loop: asyncio.AbstractEventLoop, lengths: tuple[int, ...], batch: tuple[int, ...]
) -> None:
    queue = make_queue(batch_tokens=20)
    queue.hand_over(prepared(request(loop, *lengths)), 0)
    assert tuple(row.item for row in queue.take_batch()) == batch


@pytest.mark.parametrize(
    ("padding", "batch"), [(0, (5, 5)), (2, (5, 5, 4)), (50, (5, 5, 4, 9)), (math.inf, (5, 5, 4, 9))]
)
def test_a_row_brings_no_more_padding_than_another_batch_would_cost(
    loop: asyncio.AbstractEventLoop, padding: float, batch: tuple[int, ...]
) -> None:
    queue: RowQueue[int, int, int] = RowQueue(
        Limits(9, 1000, queue_rows=10, padding_tokens=padding), length=lambda length: length
    )
    queue.hand_over(prepared(request(loop, 5, 5, 4, 9)), 0)
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
    loop = asyncio.new_event_loop()
    rows = prepared(request(loop, *lengths))
    loop.close()
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


@pytest.mark.parametrize(("runners", "share"), [(1, 3), (2, 3), (3, 2), (9, 1)])
def test_free_runners_share_what_is_there(loop: asyncio.AbstractEventLoop, runners: int, share: int) -> None:
    queue = make_queue()
    queue.add(request(loop, 1, 1, 1, 1, 1))
    assert len(queue.take_waiting(runners)) == share
    queue = make_queue()
    queue.hand_over(prepared(request(loop, 1, 1, 1, 1, 1)), 0)
    assert len(queue.take_batch(runners)) == share


def test_work_ahead_is_bounded_by_a_batch_of_every_runner(loop: asyncio.AbstractEventLoop) -> None:
    queue: RowQueue[int, int, int] = RowQueue(Limits(3, 100, queue_rows=10, runners=2), length=lambda length: length)
    queue.add(request(loop, *[1] * 9))
    queue.hand_over(prepared(request(loop, 1)), 0)
    assert len(queue.take_ahead()) == 5


def test_removing_a_request_leaves_the_others(loop: asyncio.AbstractEventLoop) -> None:
    queue = make_queue()
    first, second = request(loop, 1, 2), request(loop, 3)
    queue.add(second)
    queue.hand_over(prepared(first), 0)
    queue.add(request(loop, 4))
    assert queue.remove(first[0].ticket) == 2
    assert queue.remove(first[0].ticket) == 0
    assert [row.item for row in queue.take_ahead()] == [3, 4]
