"""The batcher: queries that arrive alone leave in company, without a timer.

Threads, the *runners*, work behind one queue. At the moment it becomes free, a runner reads what has come, turns it
into model input, takes as many rows as fit into one batch and computes them; several runners share what is there.
Without rows, one of them listens for the next message and the others wait for it. So an idle service starts at once and
on one thread, and a busy one forms larger batches the busier it is. Threads wait for messages and conditions only:
nothing sleeps and nothing polls.

    connection ──▶ waiting ──▶ ready ──▶ runners ──▶ connection
                   (rows)      (input)   (a batch each)

The law: every request gets exactly its own answer or an error; the order of arrival never changes an answer; rows whose
waiter is gone or late are dropped before they cost anything; a failing batch is retried row by row, once; and when a
thread itself dies, the connection ends, by which every waiter hears of it. Models and HTTP are unknown here. What may
wait at all is decided at the other end of the connection, by `service.batching.client`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Generic

from service.batching.channel import Asked, Closed, Connection, Notes, Outcome, Report, SharedCount
from service.batching.isolation import Failure, call_isolated
from service.batching.queueing import DropReason, Item, Limits, Prepared, Result, Row, RowQueue, Ticket
from service.errors import RequestError, too_late

logger = logging.getLogger(__name__)


class Batcher(Generic[Item, Prepared, Result]):
    """A queue and running threads.

    Args:
        prepare: turns items into model input, one for one and in order. An `InvalidRequest` that it raises for a single
            item is that request's answer. Called by several threads if there are several runners.
        run: computes one batch, one result for each row and in order; called like `prepare`.
        length: tokens of a prepared row.
        limits: the bounds.
        connection: to the client.
        left: counts for the client the rows that have left the queue, taken by a batch or dropped.
        notes: travel with the reports; the batcher adds "expired" or "cancelled" with the number of rows that were
            dropped before they were computed.
        name: of the threads.
    """

    def __init__(
        self,
        *,
        prepare: Callable[[Sequence[Item]], Sequence[Prepared]],
        run: Callable[[Sequence[Prepared]], Sequence[Result]],
        length: Callable[[Prepared], int],
        limits: Limits,
        connection: Connection,
        left: SharedCount,
        notes: Notes,
        name: str,
    ) -> None:
        self._prepare = prepare
        self._run = run
        self._limits = limits
        self._connection = connection
        self._left = left
        self._notes = notes
        self._name = name

        self._may_compute = threading.Semaphore(limits.runners)
        # Guards everything below and what tickets hold.
        self._lock = threading.Lock()
        self._turn = threading.Condition(self._lock)
        self._queue: RowQueue[Item, Prepared, Result] = RowQueue(limits, length)
        self._open: dict[int, Ticket[Result]] = {}
        self._closed: list[Closed] = []  # and not reported
        self._arrived = 0
        self._free_runners = 0
        self._is_listening = False
        self._has_ended = False
        self._has_crashed = False

    def work(self) -> bool:
        """Answer until the connection ends.

        Returns:
            False if it ended because a thread died.
        """
        threads = [
            threading.Thread(target=self._guarded, name=f"{self._name}-run", daemon=True)
            for _ in range(self._limits.runners + self._limits.ahead)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return not self._has_crashed

    def _guarded(self) -> None:
        """Do a runner's work; if it dies, so does the batcher."""
        try:
            while rows := self._next_batch():
                self._compute(rows)
        except BaseException as error:
            logger.critical("a thread of the batcher died", exc_info=error)
            self._has_crashed = True
            self._connection.close()
            with self._lock:
                self._end()

    def _compute(self, rows: Sequence[Row[Item, Prepared, Result]]) -> None:
        with self._may_compute:
            started = time.monotonic()
            outcomes = call_isolated(self._run, [row.prepared for row in rows], _wanted(rows))
            seconds = time.monotonic() - started
        with self._lock:
            for row, outcome in zip(rows, outcomes, strict=True):
                if isinstance(outcome, Failure):
                    self._fail(row, outcome)
                else:
                    self._answer(row, outcome, started)
            report = self._report(len(rows), seconds)
        self._connection.send(report)

    # With the lock held ----------------------------------------------------------------------------------------------

    def _next_batch(self) -> list[Row[Item, Prepared, Result]]:
        """Wait for a batch; an empty list means that there will be no more."""
        with self._lock:
            self._free_runners += 1
            try:
                if not self._is_listening:
                    self._listen(0)  # who has come or left while all runners were computing
                while not self._has_ended:
                    patience = self._patience()
                    if self._queue.may_prepare:
                        self._prepare_share()
                    elif patience is not None and patience <= 0:
                        if rows := self._take_batch():
                            return rows
                    elif self._is_listening or self._queue.is_preparing:
                        self._turn.wait(patience)
                    else:
                        self._listen(patience)
                return []
            finally:
                self._free_runners -= 1

    def _listen(self, seconds: float | None) -> None:
        """Read what has come, or wait for it; the lock is let go meanwhile."""
        self._is_listening = True
        self._lock.release()
        try:
            frames = self._connection.receive(seconds)
        finally:
            self._lock.acquire()
            self._is_listening = False
        if frames is None:
            self._end()
        else:
            for asked in chain.from_iterable(frames):
                self._take_in(asked)
            self._turn.notify(self._free_runners - 1)
            self._publish()

    def _take_in(self, asked: Asked) -> None:
        number, items, last, since = asked
        if items is None:
            if ticket := self._open.get(number):
                self._drop(ticket, last)
            return
        ticket = self._open[number] = Ticket(number, len(items), last)
        self._arrived += len(items)
        self._queue.add([Row(ticket, position, item, since) for position, item in enumerate(items)])

    def _end(self) -> None:
        self._has_ended = True
        self._turn.notify_all()

    def _prepare_share(self) -> None:
        """Turn this runner's share of what waits into model input; the lock is let go meanwhile."""
        taken = self._queue.take_waiting(self._free_runners)
        rows = self._in_time(taken)
        self._free_runners -= 1
        self._lock.release()
        try:
            started = time.monotonic()
            outcomes = call_isolated(self._prepare, [row.item for row in rows], _wanted(rows)) if rows else []
            ended = time.monotonic()
        finally:
            self._lock.acquire()
            self._free_runners += 1
        for row, outcome in zip(rows, outcomes, strict=True):
            if isinstance(outcome, Failure):
                self._fail(row, outcome)
            else:
                row.prepared = outcome
                row.queue_seconds = started - row.since
                row.prepare_seconds = ended - started
                row.since = ended
        self._queue.hand_over(self._in_time(rows), len(taken))
        self._turn.notify()
        self._publish()

    def _patience(self) -> float | None:
        """Seconds for which the next batch may still grow, or None when no row is ready."""
        since = self._queue.ready_since
        if since is None:
            return None
        if self._queue.is_batch_full or not self._limits.wait_seconds:
            return 0.0
        return since + self._limits.wait_seconds - time.monotonic()

    def _take_batch(self) -> list[Row[Item, Prepared, Result]]:
        """This runner's share of what is ready, without the rows that nobody waits for any more."""
        rows = self._in_time(self._queue.take_batch())
        self._turn.notify()  # for what it leaves behind, and because somebody must listen
        self._publish()
        return rows

    def _in_time(self, rows: Sequence[Row[Item, Prepared, Result]]) -> list[Row[Item, Prepared, Result]]:
        """The rows that somebody still waits for; the others, which no queue holds any more, are counted as dropped."""
        now = time.monotonic()
        kept = []
        for row in rows:
            ticket = row.ticket
            if ticket.is_open and ticket.deadline <= now:
                self._drop(ticket, "expired", too_late())
            if ticket.is_open:
                kept.append(row)
            else:
                self._count_dropped(ticket.drop_reason, 1)
        return kept

    def _answer(self, row: Row[Item, Prepared, Result], result: Result, started: float) -> None:
        """Note one row's result, and close its request when it is the last."""
        ticket = row.ticket
        if not ticket.is_open:
            return
        ticket.answers[row.position] = (result, row.queue_seconds + started - row.since, row.prepare_seconds)
        ticket.missing -= 1
        if not ticket.missing:
            self._close(ticket, ticket.answers)

    def _fail(self, row: Row[Item, Prepared, Result], failure: Failure) -> None:
        if row.ticket.is_open:
            self._drop(row.ticket, "failed", failure.error)

    def _drop(self, ticket: Ticket[Result], reason: DropReason, error: RequestError | None = None) -> None:
        """Close a request that will not be answered and drop its queued rows."""
        ticket.drop_reason = reason
        self._close(ticket, error)
        self._count_dropped(reason, self._queue.remove(ticket))

    def _close(self, ticket: Ticket[Result], outcome: Outcome) -> None:
        ticket.is_open = False
        del self._open[ticket.number]
        self._closed.append((ticket.number, outcome))

    def _count_dropped(self, reason: DropReason, rows: int) -> None:
        if rows and reason != "failed":
            self._notes.add(reason, rows)

    def _publish(self) -> None:
        """Let the client know what has left the queue, and what was closed without a batch."""
        self._left.value = self._arrived - len(self._queue)
        if self._closed:
            self._connection.send(self._report(0, 0.0))

    def _report(self, rows: int, seconds: float) -> Report:
        closed, self._closed = self._closed, []
        return Report(closed, rows, seconds, self._notes.take())


def _wanted(rows: Sequence[Row[Item, Prepared, Result]]) -> Callable[[int], bool]:
    return lambda position: rows[position].ticket.is_open
