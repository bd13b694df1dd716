"""The batcher: queries that arrive alone leave in company, without a timer.

Threads work behind one bounded queue. A *runner* takes, at the moment it becomes free, as many rows as fit into one
batch, turns them into model input where nobody has yet, and computes them; runners that are free at once share what is
there. While all of them compute, the *preparer* works ahead, at most one batch for each. So an idle service starts at
once and on one thread, and a busy one forms larger batches the busier it is. Threads wait on conditions only: nothing
sleeps and nothing polls.

    submit ──▶ waiting ──▶ preparer ──▶ ready ──▶ runners ──▶ the waiter's future
               (rows)  ╰─────────────────────────▶ (a batch each)

The law: every waiter gets exactly its own answer or an error; the order of arrival never changes an answer; rows whose
waiter is gone or late are dropped before they cost anything; a failing batch is retried row by row, once; and when a
thread itself dies, every waiter hears of it and `Batcher.healthy` turns false. Models and HTTP are unknown here.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import Generic

from service.admission import Admission
from service.errors import DeadlineExceeded, Draining, EngineFailed, NotReady, RequestError
from service.isolation import Failure, call_isolated
from service.queueing import DropReason, Item, Limits, Prepared, Result, Row, RowQueue, Served, Ticket

logger = logging.getLogger(__name__)


class Batcher(Generic[Item, Prepared, Result]):
    """A bounded queue, a preparing thread and running threads.

    Args:
        prepare: turns items into model input, one for one and in order. An `InvalidRequest` that it raises for a single
            item is that request's answer.
        run: computes one batch, one result for each row and in order; called by several threads if there are several
            runners.
        length: tokens of a prepared row.
        limits: the bounds.
        loop: the event loop of the waiters.
        on_drop: called with a reason and a number of rows that were dropped before they were computed; on any thread,
            and with the lock held.
        name: of the threads.
    """

    def __init__(
        self,
        *,
        prepare: Callable[[Sequence[Item]], Sequence[Prepared]],
        run: Callable[[Sequence[Prepared]], Sequence[Result]],
        length: Callable[[Prepared], int],
        limits: Limits,
        loop: asyncio.AbstractEventLoop,
        on_drop: Callable[[DropReason, int], None],
        name: str,
    ) -> None:
        self._prepare = prepare
        self._run = run
        self._limits = limits
        self._loop = loop
        self._on_drop = on_drop

        # One lock guards everything below and what tickets hold; preparer and runners wait on it for different things.
        self._lock = threading.Lock()
        self._may_prepare = threading.Condition(self._lock)
        self._may_run = threading.Condition(self._lock)
        self._queue: RowQueue[Item, Prepared, Result] = RowQueue(limits, length)
        self._admission = Admission(limits)
        self._open: set[Ticket[Result]] = set()
        self._free_runners = 0
        self._is_working_ahead = False
        self._closing = False
        self._crashed = False
        self._wake_is_due = False  # on the event loop only

        self._threads = [
            threading.Thread(target=self._guard, args=(work,), name=f"{name}-{role}", daemon=True)
            for role, work in (("prepare", self._prepare_forever), *[("run", self._run_forever)] * limits.runners)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def healthy(self) -> bool:
        """False for good once one of the threads has died."""
        return not self._crashed

    @property
    def queued_rows(self) -> int:
        """Rows that were admitted and that no batch has taken."""
        return len(self._queue)

    def has_room(self, rows: int = 1) -> bool:
        """Whether a request of this many rows would be taken now."""
        return not (self._crashed or self._closing) and self.queued_rows + rows <= self._admission.room(rows)

    def refuse(self, rows: int = 1) -> RequestError:
        """Note that a request is refused, and say why."""
        if self._crashed:
            return _stopped()
        if self._closing:
            return _closing()
        return self._admission.refuse(self.queued_rows, rows)

    def submit(self, items: Sequence[Item], deadline: float = math.inf) -> asyncio.Future[list[Served[Result]]]:
        """Queue the rows of one request; call it on the event loop.

        Cancelling the future drops the rows that no batch has taken.

        Args:
            items: at least one.
            deadline: second of `time.monotonic` after which the answer is worthless.

        Returns:
            A future of the answers in the order of `items`. It fails with a `RequestError`: `DeadlineExceeded`, what
            `prepare` raised, or `EngineFailed`.

        Raises:
            QueueFull: there is no room for the rows.
            InvalidRequest: there never will be.
            NotReady: a thread of the batcher has died.
            Draining: the batcher is closing.
        """
        if not items:
            raise ValueError("expected at least one item, found none")
        now = time.monotonic()
        ticket: Ticket[Result] = Ticket(self._loop.create_future(), len(items), deadline)
        with self._lock:
            if not self.has_room(len(items)):
                raise self.refuse(len(items))
            self._open.add(ticket)
            self._queue.add([Row(ticket, position, item, now) for position, item in enumerate(items)])
        if not self._wake_is_due:
            # Not at once: requests that arrive in the same turn of the event loop should go into one batch.
            self._wake_is_due = True
            self._loop.call_soon(self._wake)
        if deadline < math.inf:
            ticket.timer = self._loop.call_later(max(0.0, deadline - now), self._on_deadline, ticket)
        ticket.future.add_done_callback(lambda future: self._on_done(ticket, future))
        return ticket.future

    async def close(self, *, drain: bool) -> None:
        """Take no more requests and end all threads; call it on the event loop.

        Args:
            drain: compute what is queued first; otherwise every request without an answer fails with `Draining`.
        """
        with self._lock:
            self._closing = True
            if not drain:
                self._fail_all(_closing())
            self._wake_threads()
        for thread in self._threads:
            await asyncio.to_thread(thread.join)

    # On the event loop -----------------------------------------------------------------------------------------------

    def _wake(self) -> None:
        """Wake free runners for what waits, or the preparer where there is none."""
        self._wake_is_due = False
        with self._lock:
            if self._free_runners:
                self._may_run.notify(self._queue.waiting)
            else:
                self._may_prepare.notify()

    def _on_deadline(self, ticket: Ticket[Result]) -> None:
        with self._lock:
            if ticket.is_open:
                self._abandon(ticket, "expired", _too_late())

    def _on_done(self, ticket: Ticket[Result], future: asyncio.Future[list[Served[Result]]]) -> None:
        if ticket.timer is not None:
            ticket.timer.cancel()
        if future.cancelled():
            with self._lock:
                if ticket.is_open:
                    self._abandon(ticket, "cancelled", None)

    @staticmethod
    def _settle(tickets: Sequence[Ticket[Result]]) -> None:
        for ticket in tickets:
            if ticket.future.done():
                continue
            if ticket.error is not None:
                ticket.future.set_exception(ticket.error)
            else:
                ticket.future.set_result([answer for answer in ticket.answers if answer is not None])

    # On the preparer -------------------------------------------------------------------------------------------------

    def _prepare_forever(self) -> None:
        while rows := self._next_to_prepare():
            self._make_ready(rows)
            with self._lock:
                self._is_working_ahead = False
                self._may_run.notify(len(rows))

    def _next_to_prepare(self) -> list[Row[Item, Prepared, Result]]:
        """Wait for rows and for room ahead of the runners; an empty list means that there will be no more."""
        with self._lock:
            while not self._crashed:
                taken = self._queue.take_ahead()
                if rows := self._still_wanted(taken):
                    self._is_working_ahead = True
                    return rows
                if taken:
                    continue
                if self._closing and not self._queue.has_unprepared:
                    self._may_run.notify_all()
                    break
                self._may_prepare.wait()
            return []

    # On the runners --------------------------------------------------------------------------------------------------

    def _run_forever(self) -> None:
        while rows := self._next_batch():
            started = time.monotonic()
            outcomes = call_isolated(self._run, [row.prepared for row in rows], _wanted(rows))
            ended = time.monotonic()
            with self._lock:
                self._admission.learn(len(rows), ended - started)
                answered = []
                for row, outcome in zip(rows, outcomes, strict=True):
                    if isinstance(outcome, Failure):
                        self._fail(row, outcome)
                    elif self._answer(row, outcome, started):
                        answered.append(row.ticket)
                self._post(answered)

    def _next_batch(self) -> list[Row[Item, Prepared, Result]]:
        """Wait for a batch; an empty list means that there will be no more."""
        with self._lock:
            self._free_runners += 1
            try:
                while not self._crashed:
                    patience = self._patience()
                    if patience is not None and patience <= 0:
                        if rows := self._take_batch():
                            return rows
                    elif self._queue.waiting and not self._is_working_ahead:  # what the preparer has came first
                        self._prepare_own()
                    elif patience is None and self._closing and not self._queue.has_unprepared:
                        break
                    else:
                        self._may_run.wait(patience)
                return []
            finally:
                self._free_runners -= 1

    def _take_batch(self) -> list[Row[Item, Prepared, Result]]:
        """This runner's share of what is ready, without the rows that nobody waits for any more."""
        taken = self._queue.take_batch(self._free_runners)
        self._may_prepare.notify()
        if self._queue.ready_since is not None:
            self._may_run.notify()
        return self._in_time(taken)

    def _prepare_own(self) -> None:
        """Turn this runner's share of what waits into model input; the lock, which is held, is let go for it."""
        if rows := self._still_wanted(self._queue.take_waiting(self._free_runners)):
            self._free_runners -= 1
            self._lock.release()
            try:
                self._make_ready(rows)
            finally:
                self._lock.acquire()
                self._free_runners += 1

    def _patience(self) -> float | None:
        """Seconds for which the next batch may still grow, or None when no row is ready."""
        since = self._queue.ready_since
        if since is None:
            return None
        if self._closing or self._queue.is_batch_full or not self._limits.wait_seconds:
            return 0.0
        return since + self._limits.wait_seconds - time.monotonic()

    def _answer(self, row: Row[Item, Prepared, Result], result: Result, started: float) -> bool:
        """Note one row's result; True when it completes its request."""
        ticket = row.ticket
        if not ticket.is_open:
            return False
        ticket.answers[row.position] = Served(result, row.queue_seconds + started - row.since, row.prepare_seconds)
        ticket.missing -= 1
        if ticket.missing:
            return False
        ticket.is_open = False
        self._open.discard(ticket)
        return True

    # On the preparer and the runners ----------------------------------------------------------------------------------

    def _make_ready(self, rows: Sequence[Row[Item, Prepared, Result]]) -> None:
        """Turn rows into model input and hand them over."""
        started = time.monotonic()
        outcomes = call_isolated(self._prepare, [row.item for row in rows], _wanted(rows))
        ended = time.monotonic()
        with self._lock:
            for row, outcome in zip(rows, outcomes, strict=True):
                if isinstance(outcome, Failure):
                    self._fail(row, outcome)
                else:
                    row.prepared = outcome
                    row.queue_seconds = started - row.since
                    row.prepare_seconds = ended - started
                    row.since = ended
            self._queue.hand_over(self._in_time(rows), len(rows))
            if self._closing:
                self._wake_threads()

    # On any thread, with the lock held -------------------------------------------------------------------------------

    def _in_time(self, rows: Sequence[Row[Item, Prepared, Result]]) -> list[Row[Item, Prepared, Result]]:
        """The rows that somebody still waits for; the others, which no queue holds any more, are counted as dropped."""
        now = time.monotonic()
        kept = []
        for row in rows:
            if row.ticket.is_open and row.ticket.deadline <= now:
                self._abandon(row.ticket, "expired", _too_late())
            if row.ticket.is_open:
                kept.append(row)
            else:
                self._on_drop(row.ticket.drop_reason, 1)
        return kept

    def _still_wanted(self, taken: Sequence[Row[Item, Prepared, Result]]) -> list[Row[Item, Prepared, Result]]:
        """Of rows that were taken into preparation those that somebody waits for; the others leave it."""
        rows = self._in_time(taken)
        self._queue.hand_over([], len(taken) - len(rows))
        return rows

    def _fail(self, row: Row[Item, Prepared, Result], failure: Failure) -> None:
        if row.ticket.is_open:
            self._abandon(row.ticket, "failed", failure.error)

    def _abandon(self, ticket: Ticket[Result], reason: DropReason, error: RequestError | None) -> None:
        """Close a request that will not be answered, drop its queued rows and tell its waiter the error, if any."""
        ticket.is_open = False
        ticket.drop_reason = reason
        ticket.error = error
        self._open.discard(ticket)
        if dropped := self._queue.remove(ticket):
            self._on_drop(reason, dropped)
            self._may_prepare.notify()
        if error is not None:
            self._post([ticket])

    def _fail_all(self, error: RequestError) -> None:
        for ticket in list(self._open):
            self._abandon(ticket, "failed", error)

    def _post(self, tickets: Sequence[Ticket[Result]]) -> None:
        """Wake the waiters of closed requests, all in one go."""
        if tickets and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._settle, tickets)

    def _wake_threads(self) -> None:
        self._may_prepare.notify_all()
        self._may_run.notify_all()

    # Around each thread ----------------------------------------------------------------------------------------------

    def _guard(self, work: Callable[[], None]) -> None:
        """Do a thread's work; if it dies, so does the batcher, and nobody is left waiting."""
        try:
            work()
        except BaseException as error:
            logger.critical("a thread of the batcher died", exc_info=error)
            with self._lock:
                self._crashed = True
                self._fail_all(EngineFailed("the model stopped after an internal error"))
                self._wake_threads()


def _wanted(rows: Sequence[Row[Item, Prepared, Result]]) -> Callable[[int], bool]:
    return lambda position: rows[position].ticket.is_open


def _too_late() -> DeadlineExceeded:
    return DeadlineExceeded("timeout_ms passed before the answer was there")


def _closing() -> Draining:
    return Draining("the service is shutting down", retry_after_seconds=1)


def _stopped() -> NotReady:
    return NotReady("the model stopped after an internal error; the process needs a restart", retry_after_seconds=1)
