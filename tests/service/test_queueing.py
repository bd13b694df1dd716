from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

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
    rows = queue.take_waiting()
    assert (len(rows), len(queue)) == (3, 4)
    queue.hand_over(prepared(rows), 3)
    assert (len(queue), queue.is_batch_full, queue.ready_since) == (4, True, 0.0)
    assert queue.take_waiting() == []
    assert (len(queue.take_batch()), len(queue), queue.has_unprepared) == (3, 1, True)


def test_rows_that_the_preparer_does_not_bring_back_are_gone(loop: asyncio.AbstractEventLoop) -> None:
    queue = make_queue()
    queue.add(request(loop, 1, 1))
    rows = queue.take_waiting()
    queue.hand_over(prepared(rows[1:]), 2)
    assert len(queue) == 1


@pytest.mark.parametrize(
    ("lengths", "batch"),
    [((5, 5, 5, 5), 3), ((10, 10, 9), 2), ((25,), 1), ((3, 25), 1), ((1, 9, 2), 2), ((0, 0, 0), 3)],
)
def test_a_batch_is_the_longest_prefix_within_its_padded_tokens(
    loop: asyncio.AbstractEventLoop, lengths: tuple[int, ...], batch: int
) -> None:
    queue = make_queue(batch_tokens=20)
    queue.hand_over(prepared(request(loop, *lengths)), 0)
    assert [row.item for row in queue.take_batch()] == list(lengths[:batch])


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
    assert len(queue.take_waiting()) == 5


def test_removing_a_request_leaves_the_others(loop: asyncio.AbstractEventLoop) -> None:
    queue = make_queue()
    first, second = request(loop, 1, 2), request(loop, 3)
    queue.add(second)
    queue.hand_over(prepared(first), 0)
    queue.add(request(loop, 4))
    assert queue.remove(first[0].ticket) == 2
    assert queue.remove(first[0].ticket) == 0
    assert [row.item for row in queue.take_waiting()] == [3, 4]
