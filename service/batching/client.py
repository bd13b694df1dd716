"""The waiters' end of a batcher: futures out, answers in, and the bound of what may wait.

    submit ──▶ connection ──▶ batcher (`service.batching.batcher`, elsewhere)
    future ◀── connection ◀──╯

Requests of one turn of the event loop leave in one frame, and the answers of one batch come in one. Everything here
happens on the event loop.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, cast

from service.batching.admission import Admission
from service.batching.channel import Asked, Outcome, Report, SharedCount, Unpacker, packed
from service.batching.queueing import DropReason, Item, Limits, Result
from service.errors import Draining, EngineFailed, NotReady, RequestError, too_late


class Served(NamedTuple, Generic[Result]):
    """The answer to one row and what it waited for."""

    result: Result
    queue_seconds: float
    prepare_seconds: float


class _Waiter(NamedTuple, Generic[Result]):
    """Who waits for a request, and the timer of its deadline."""

    future: asyncio.Future[list[Served[Result]]]
    timer: asyncio.TimerHandle | None


class Client(asyncio.Protocol, Generic[Item, Result]):
    """The protocol of the connection to one batcher.

    Args:
        limits: of the batcher.
        left: the batcher's count of the rows that have left its queue.
        observe: called with each note of the batcher, the name of a series and a value.
    """

    def __init__(self, limits: Limits, left: SharedCount, observe: Callable[[str, float], None]) -> None:
        self._left = left
        self._observe = observe
        self._admission = Admission(limits)
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._unpacker = Unpacker()
        self._waiters: dict[int, _Waiter[Result]] = {}
        self._all_answered = asyncio.Event()
        self._unsent: list[Asked] = []
        self._number = 0
        self._sent_rows = 0
        self._is_closing = False
        self._has_died = False
        self._is_lost = asyncio.Event()

    @property
    def healthy(self) -> bool:
        """False for good once the batcher has died."""
        return not self._has_died

    @property
    def queued_rows(self) -> int:
        """Rows that were admitted and that no batch has taken."""
        return self._sent_rows - self._left.value

    def has_room(self, rows: int = 1) -> bool:
        """Whether a request of this many rows would be taken now."""
        return not (self._has_died or self._is_closing) and self.queued_rows + rows <= self._admission.room(rows)

    def refuse(self, rows: int = 1) -> RequestError:
        """Note that a request is refused, and say why."""
        if self._has_died:
            return NotReady(
                "the model stopped after an internal error: load its bundle again or restart the service",
                retry_after_seconds=1,
            )
        if self._is_closing:
            return Draining("the service is shutting down", retry_after_seconds=1)
        return self._admission.refuse(self.queued_rows, rows)

    def submit(self, items: Sequence[Item], deadline: float = math.inf) -> asyncio.Future[list[Served[Result]]]:
        """Queue the rows of one request.

        Cancelling the future drops the rows that no batch has taken.

        Args:
            items: at least one.
            deadline: second of `time.monotonic` after which the answer is worthless.

        Returns:
            A future of the answers in the order of `items`. It fails with a `RequestError`: `DeadlineExceeded`, what
            the batcher's `prepare` raised, or `EngineFailed`.

        Raises:
            QueueFull: there is no room for the rows.
            InvalidRequest: there never will be.
            NotReady: the batcher has died.
            Draining: the client is closing.
        """
        if not items:
            raise ValueError("expected at least one item, found none")
        if not self.has_room(len(items)):
            raise self.refuse(len(items))
        self._number = number = self._number + 1
        self._sent_rows += len(items)
        now = time.monotonic()
        self._send((number, items, deadline, now))
        timer = None
        if deadline < math.inf:
            timer = self._loop.call_later(max(0.0, deadline - now), self._on_deadline, number)
        future: asyncio.Future[list[Served[Result]]] = self._loop.create_future()
        future.add_done_callback(lambda _: self._on_done(number))
        self._waiters[number] = _Waiter(future, timer)
        return future

    async def close(self) -> None:
        """Take no more requests, wait for the answers to those that were taken, and tell the batcher to end."""
        self._is_closing = True
        while self._waiters:
            self._all_answered.clear()
            await self._all_answered.wait()
        if not self._is_lost.is_set():
            self._transport.write_eof()

    async def wait_closed(self) -> None:
        """Wait for the last word of the batcher; call it after `close`."""
        await self._is_lost.wait()

    # Of the protocol -------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are like them, but none of them

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        for report in self._unpacker.feed(data):
            self._take_in(report)

    def connection_lost(self, _: Exception | None) -> None:
        """See `asyncio.Protocol`; when it was not for us to end the connection, nobody is left waiting."""
        self._has_died = not self._is_closing or bool(self._waiters)
        self._is_lost.set()
        for number in list(self._waiters):
            self._settle(number, EngineFailed("the model stopped after an internal error"))

    # Of requests -----------------------------------------------------------------------------------------------------

    def _send(self, asked: Asked) -> None:
        if not self._unsent:
            # Not at once: requests that arrive in the same turn of the event loop should go into one batch.
            self._loop.call_soon(self._flush)
        self._unsent.append(asked)

    def _flush(self) -> None:
        self._transport.write(packed(self._unsent))
        self._unsent = []

    def _take_in(self, report: Report) -> None:
        for number, outcome in report.closed:
            self._settle(number, outcome)
        self._loop.call_soon(self._learn, report)  # the waiters come first

    def _learn(self, report: Report) -> None:
        if report.rows:
            self._admission.learn(report.rows, report.seconds)
        for series, value in report.notes:
            self._observe(series, value)

    def _settle(self, number: int, outcome: Outcome) -> None:
        """Give a waiter what it waits for, if it still does."""
        waiter = self._waiters.get(number)
        if waiter is None or waiter.future.done():
            return
        if isinstance(outcome, RequestError):
            waiter.future.set_exception(outcome)
        elif outcome is not None:
            waiter.future.set_result([Served(*row) for row in outcome])

    def _on_deadline(self, number: int) -> None:
        self._withdraw(number, "expired")
        self._settle(number, too_late())

    def _on_done(self, number: int) -> None:
        waiter = self._waiters.pop(number)
        if waiter.timer is not None:
            waiter.timer.cancel()
        if waiter.future.cancelled():
            self._withdraw(number, "cancelled")
        if not self._waiters:
            self._all_answered.set()

    def _withdraw(self, number: int, reason: DropReason) -> None:
        """Have the batcher drop what it has not computed of a request."""
        if not self._is_lost.is_set():
            self._send((number, None, reason, time.monotonic()))
