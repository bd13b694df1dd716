"""Who may wait: the bound of a queue, tighter under overload, and when the refused should come back.

A long queue helps against bursts. Under lasting overload it is always full and only makes every answer late; so from a
refusal on, until some time has passed without another, no more may wait than is served soon.
"""

from __future__ import annotations

import math
import time

from service.batching.queueing import Limits
from service.errors import InvalidRequest, QueueFull

RATE_SMOOTHING = 0.2
OVERLOAD_LASTS_SECONDS = 1.0
LONGEST_RETRY_SECONDS = 60


class Admission:
    """The rule of one queue; its owner guards it with a lock."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._rows_per_second: float | None = None
        self._last_refusal = -math.inf

    def learn(self, rows: int, seconds: float) -> None:
        """Note how long a batch of so many rows took one of the runners."""
        rate = self._limits.runners * rows / max(seconds, 1e-6)
        if self._rows_per_second is None:
            self._rows_per_second = rate
        self._rows_per_second += RATE_SMOOTHING * (rate - self._rows_per_second)

    def room(self, rows: int) -> int:
        """How many rows may wait now, those of a request of so many rows included."""
        limit = self._limits.queue_rows
        if self._rows_per_second is None or time.monotonic() > self._last_refusal + OVERLOAD_LASTS_SECONDS:
            return limit
        soon_served = self._rows_per_second * self._limits.overload_seconds
        # Small batches are slow for their rows: a room that shrank with them would make them smaller still, so one
        # batch can always wait. And a large request must not starve: an empty queue takes it.
        return int(min(limit, max(rows, self._limits.batch_rows, soon_served)))

    def refuse(self, queued: int, rows: int) -> QueueFull | InvalidRequest:
        """Note a refusal and say why.

        Args:
            queued: rows that wait.
            rows: of the request.
        """
        if rows > self._limits.queue_rows:
            most = self._limits.queue_rows
            return InvalidRequest(f"the request has {rows} queries, but at most {most} can wait: send it in parts")
        room = self.room(rows)
        self._last_refusal = time.monotonic()
        seconds = self._seconds_to_serve(queued + rows - room)
        return QueueFull(
            f"{queued} of the queue's {room} places are taken, but the request needs {rows}: try again in {seconds} s",
            retry_after_seconds=seconds,
        )

    def _seconds_to_serve(self, rows: int) -> int:
        """Whole seconds until this many rows will have left the queue, from the rate of the last batches."""
        if self._rows_per_second is None:
            return 1
        return min(LONGEST_RETRY_SECONDS, max(1, math.ceil(rows / self._rows_per_second)))
