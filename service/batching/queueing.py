"""The rows that wait for one model, as plain data: no threads, no clock, no lock of its own.

A request is a `Ticket`, each of its queries a `Row`. Rows pass through three places in order of arrival: waiting, in
preparation, ready. The batcher owns the queue and guards it with its lock.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

Item = TypeVar("Item")
Prepared = TypeVar("Prepared")
Result = TypeVar("Result")

DropReason = Literal["expired", "cancelled", "failed"]

# So many batches of rows are made ready before one is taken, so that it can be of like lengths.
READY_BATCHES = 2


@dataclass(frozen=True)
class Limits:
    """The bounds of one queue.

    Attributes:
        batch_rows: most rows in one batch.
        batch_tokens: most tokens in one batch, counted as its longest row times its rows; a longer row goes alone.
        queue_rows: most rows that wait, those being prepared included and those being computed not.
        wait_seconds: how long a batch that is not full waits for more rows; 0 starts at once.
        runners: batches that are computed at the same time.
        ahead: batches that are made ready and wait while the runners compute.
        padding_tokens: most tokens of padding that one more row may bring into a batch; as many as cost what a batch
            of its own would.
        overload_seconds: how many seconds of work may wait while the queue is overloaded, that is until one second has
            passed without a refusal. Long queues help against bursts; under lasting overload they only add latency.
    """

    batch_rows: int
    batch_tokens: int
    queue_rows: int
    wait_seconds: float = 0.0
    runners: int = 1
    ahead: int = 0
    padding_tokens: float = math.inf
    overload_seconds: float = math.inf


class Ticket(Generic[Result]):
    """One request: several rows and one answer.

    Attributes:
        number: by which its waiter knows it.
        deadline: second of `time.monotonic` after which the answer is worthless.
        is_open: whether an answer may still come.
        drop_reason: why it is closed, if not because it was answered.
        answers: by row the result and how many seconds the row waited and was prepared; None until it is computed.
        missing: rows that are not computed yet.
    """

    __slots__ = ("answers", "deadline", "drop_reason", "is_open", "missing", "number")

    def __init__(self, number: int, rows: int, deadline: float) -> None:
        self.number = number
        self.deadline = deadline
        self.is_open = True
        self.drop_reason: DropReason = "failed"
        self.answers: list[tuple[Result, float, float] | None] = [None] * rows
        self.missing = rows


class Row(Generic[Item, Prepared, Result]):
    """One query on its way through the queue.

    Attributes:
        ticket: the request it belongs to.
        position: its place in the request.
        item: the query.
        prepared: the query as model input; set when the row becomes ready.
        since: second at which it began to wait, first for its preparation, then for its batch.
        queue_seconds: waited for its preparation.
        prepare_seconds: duration of the call that prepared it.
    """

    __slots__ = ("item", "position", "prepare_seconds", "prepared", "queue_seconds", "since", "ticket")

    prepared: Prepared

    def __init__(self, ticket: Ticket[Result], position: int, item: Item, since: float) -> None:
        self.ticket = ticket
        self.position = position
        self.item = item
        self.since = since
        self.queue_seconds = 0.0
        self.prepare_seconds = 0.0


class RowQueue(Generic[Item, Prepared, Result]):
    """First in, first out by the oldest of a batch, in two stages; ``len`` counts every row that no batch has taken.

    Args:
        limits: the bounds; `RowQueue` itself refuses nothing.
        length: tokens of a prepared row.
    """

    def __init__(self, limits: Limits, length: Callable[[Prepared], int]) -> None:
        self._limits = limits
        self._length = length
        self._waiting: deque[Row[Item, Prepared, Result]] = deque()
        self._preparing = 0
        self._ready: deque[Row[Item, Prepared, Result]] = deque()

    def __len__(self) -> int:
        return len(self._waiting) + self._preparing + len(self._ready)

    @property
    def may_prepare(self) -> bool:
        """Whether rows wait for preparation and have room among those that are ready."""
        return bool(self._waiting) and self._room > 0

    @property
    def is_preparing(self) -> bool:
        """Whether rows are in preparation."""
        return self._preparing > 0

    @property
    def is_batch_full(self) -> bool:
        """Whether the ready rows are as many as one batch takes."""
        return len(self._ready) >= self._limits.batch_rows

    @property
    def ready_since(self) -> float | None:
        """The second at which the oldest ready row became ready, or None without one."""
        return self._ready[0].since if self._ready else None

    def add(self, rows: Sequence[Row[Item, Prepared, Result]]) -> None:
        """Append the rows of one request."""
        self._waiting.extend(rows)

    @property
    def _room(self) -> int:
        return READY_BATCHES * self._limits.batch_rows - len(self._ready) - self._preparing

    def take_waiting(self, runners: int) -> list[Row[Item, Prepared, Result]]:
        """Give into preparation what one of so many free runners takes of what waits, as far as there is room."""
        most = min(self._room, _share(len(self._waiting), runners))
        rows = [self._waiting.popleft() for _ in range(most)]
        self._preparing += len(rows)
        return rows

    def hand_over(self, rows: Sequence[Row[Item, Prepared, Result]], taken: int) -> None:
        """Take rows back from preparation.

        Args:
            rows: that are ready.
            taken: how many had been given; those that do not come back are gone.
        """
        self._preparing -= taken
        self._ready.extend(rows)

    def take_batch(self) -> list[Row[Item, Prepared, Result]]:
        """A runner's share of what is ready: the oldest row and those nearest to it in length that fit into one batch.

        So a row is overtaken by at most as many batches as rows were ready before it.
        """
        if not self._ready:
            return []
        lengths = [self._length(row.prepared) for row in self._ready]
        by_nearness = sorted(range(len(lengths)), key=lambda place: abs(lengths[place] - lengths[0]))
        chosen = self._fitting(lengths, by_nearness)
        taken = [row for place, row in enumerate(self._ready) if place in chosen]
        self._ready = deque(row for place, row in enumerate(self._ready) if place not in chosen)
        return taken

    def _fitting(self, lengths: Sequence[int], places: Iterable[int]) -> set[int]:
        """The first places, at least one, that may share a batch."""
        limits = self._limits
        # The other runners, busy or not, take theirs: they are free before this one is again.
        most = min(limits.batch_rows, _share(len(lengths), limits.runners))
        chosen: set[int] = set()
        padded = 0  # tokens of the batch with its padding
        longest = 0
        for place in places:
            grown = max(longest, lengths[place])
            padding = grown * (len(chosen) + 1) - padded - lengths[place]
            too_large = grown * (len(chosen) + 1) > limits.batch_tokens or padding > limits.padding_tokens
            if chosen and (len(chosen) == most or too_large):
                break
            chosen.add(place)
            longest, padded = grown, grown * len(chosen)
        return chosen

    def remove(self, ticket: Ticket[Result]) -> int:
        """Remove the rows of one request, those in preparation excepted.

        Returns:
            How many there were.
        """
        before = len(self)
        self._waiting = deque(row for row in self._waiting if row.ticket is not ticket)
        self._ready = deque(row for row in self._ready if row.ticket is not ticket)
        return before - len(self)


def _share(rows: int, runners: int) -> int:
    return -(-rows // runners)
