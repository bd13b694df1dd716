"""A computation that a test stops and releases at will, for a client and a batcher on real threads."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from service.batching.batcher import Batcher
from service.batching.channel import Connection, Notes, SharedCount
from service.batching.client import Client
from service.batching.queueing import Limits

PLUG = -1  # the item that holds the runner up
LIMITS = Limits(batch_rows=4, batch_tokens=1000, queue_rows=16)


def answer(item: int) -> int:
    """What every row must get, whatever its company."""
    return item * item + 7


def shared_count() -> SharedCount:
    file = os.memfd_create("left")
    os.truncate(file, SharedCount.BYTES)
    try:
        return SharedCount(file)
    finally:
        os.close(file)


class Computation:
    """Prepares and runs integers, records every call, and blocks in the plug's batch until it is released."""

    def __init__(self) -> None:
        self.prepared: list[list[int]] = []
        self.batches: list[list[int]] = []
        self.dropped: list[tuple[str, float]] = []
        self.blocked = threading.Semaphore(0)
        self.release = threading.Event()
        self.fails_in_company: set[int] = set()
        self.fails_always: set[int] = set()
        self.run_error: Callable[[], BaseException] = lambda: ValueError("poison")

    def prepare(self, items: Sequence[int]) -> list[int]:
        self.prepared.append(list(items))
        return list(items)

    def run(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        if PLUG in items:
            self.blocked.release()
            self.release.wait()
        if self.fails_always.intersection(items) or (len(items) > 1 and self.fails_in_company.intersection(items)):
            raise self.run_error()
        return [answer(item) for item in items]

    def on_note(self, series: str, value: float) -> None:
        self.dropped.append((series, value))

    def ran(self, item: int) -> bool:
        return any(item in batch for batch in self.batches)


async def until_sent() -> None:
    """Let a client write what it has to say, of requests that were cancelled too."""
    for _ in range(3):  # the future's callback, the frame's, and the turn that follows
        await asyncio.sleep(0)


@asynccontextmanager
async def batching(computation: Computation, limits: Limits = LIMITS, **other: Any) -> AsyncIterator[Client[int, int]]:
    """A client and, on threads, its batcher, joined by real sockets."""
    ours, theirs = socket.socketpair()
    left = shared_count()
    arguments: dict[str, Any] = {
        "prepare": computation.prepare,
        "run": computation.run,
        "length": lambda item: 1,
        "limits": limits,
        "connection": Connection(theirs),
        "left": left,
        "notes": Notes(),
        "name": "test",
    }
    batcher: Batcher[int, int, int] = Batcher(**{**arguments, **other})

    def work() -> None:
        with theirs:
            batcher.work()

    threading.Thread(target=work).start()
    loop = asyncio.get_running_loop()
    _, client = await loop.create_connection(lambda: Client[int, int](limits, left, computation.on_note), sock=ours)
    try:
        yield client
    finally:
        computation.release.set()
        await client.close()
        await client.wait_closed()


@asynccontextmanager
async def plugged(computation: Computation, limits: Limits = LIMITS, **other: Any) -> AsyncIterator[Client[int, int]]:
    """The same with all runners held up, each by a plug, until the test sets `computation.release`."""
    async with batching(computation, limits, **other) as client:
        plugs = []
        for _ in range(limits.runners):
            plugs.append(client.submit([PLUG]))
            await asyncio.to_thread(computation.blocked.acquire)
        yield client
        computation.release.set()
        for plug in plugs:
            assert [served.result for served in await plug] == [answer(PLUG)]
