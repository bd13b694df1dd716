"""A computation that a test stops and releases at will, for batchers on real threads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from service.batching import Batcher
from service.queueing import DropReason, Limits

PLUG = -1  # the item that holds the runner up
LIMITS = Limits(batch_rows=4, batch_tokens=1000, queue_rows=16)


def answer(item: int) -> int:
    """What every row must get, whatever its company."""
    return item * item + 7


class Computation:
    """Prepares and runs integers, records every call, and blocks in the plug's batch until it is released."""

    def __init__(self) -> None:
        self.prepared: list[list[int]] = []
        self.preparers: list[str] = []
        self.batches: list[list[int]] = []
        self.dropped: list[tuple[DropReason, int]] = []
        self.has_dropped = threading.Event()
        self.blocked = threading.Semaphore(0)
        self.release = threading.Event()
        self.fails_in_company: set[int] = set()
        self.fails_always: set[int] = set()
        self.run_error: Callable[[], BaseException] = lambda: ValueError("poison")

    def prepare(self, items: Sequence[int]) -> list[int]:
        self.prepared.append(list(items))
        self.preparers.append(threading.current_thread().name)
        return list(items)

    def run(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        if PLUG in items:
            self.blocked.release()
            self.release.wait()
        if self.fails_always.intersection(items) or (len(items) > 1 and self.fails_in_company.intersection(items)):
            raise self.run_error()
        return [answer(item) for item in items]

    def on_drop(self, reason: DropReason, rows: int) -> None:
        self.dropped.append((reason, rows))
        self.has_dropped.set()

    def ran(self, item: int) -> bool:
        return any(item in batch for batch in self.batches)


def make_batcher(computation: Computation, limits: Limits = LIMITS, **other: Any) -> Batcher[int, int, int]:
    arguments: dict[str, Any] = {
        "prepare": computation.prepare,
        "run": computation.run,
        "length": lambda item: 1,
        "limits": limits,
        "loop": asyncio.get_running_loop(),
        "on_drop": computation.on_drop,
        "name": "test",
    }
    return Batcher(**{**arguments, **other})


@asynccontextmanager
async def plugged(
    computation: Computation, limits: Limits = LIMITS, **other: Any
) -> AsyncIterator[Batcher[int, int, int]]:
    """A batcher whose runners are held up, each by a plug, until the test sets `computation.release`."""
    batcher = make_batcher(computation, limits, **other)
    plugs = []
    for _ in range(limits.runners):
        plugs.append(batcher.submit([PLUG]))
        await asyncio.to_thread(computation.blocked.acquire)
    try:
        yield batcher
    finally:
        computation.release.set()
        await batcher.close(drain=True)
        for plug in plugs:
            if not plug.exception():
                assert [served.result for served in plug.result()] == [answer(PLUG)]
