"""A load generator: raw sockets, one request at a time on each, in closed or open loop.

It shares its processors with the server it measures, so it does as little as it can: no HTTP client, no task for each
request, and of a response only the status, the length and the Server-Timing are read.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import time
from array import array
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import cast

from service.errors import LoadError

HEAD_END = b"\r\n\r\n"
CONNECT_SECONDS = 5.0
LAST_ANSWERS_SECONDS = 10.0
# The event loop's timers know milliseconds only: asked for less, it would spin on a processor that the server needs.
TICK_SECONDS = 0.001
MAX_REQUESTS = 2_000_000

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)
_TIMING = re.compile(rb"\r\nserver-timing: *([^\r]*)", re.IGNORECASE)
_STAGE = re.compile(rb"(\w+);dur=([\d.]+)")


@dataclass
class Tally:
    """What came back.

    Attributes:
        answered_ms: latencies of the answers with status 200.
        refused_ms: latencies of the other answers.
        statuses: how many answers had which status.
        broken: requests whose connection ended without an answer, or that had none at the end.
        timings: the Server-Timing of the answers with status 200; read when the measurement is over.
        seconds: from the first request to the last one's turn.
        busy_seconds: processor time that the generator itself took.
    """

    answered_ms: array[float] = field(default_factory=lambda: array("d"))
    refused_ms: array[float] = field(default_factory=lambda: array("d"))
    statuses: Counter[int] = field(default_factory=Counter)
    broken: int = 0
    timings: list[bytes] = field(default_factory=list)
    seconds: float = 0.0
    busy_seconds: float = 0.0

    def add(self, status: int, milliseconds: float, head: bytes) -> None:
        """Note one answer."""
        self.statuses[status] += 1
        if status != 200:
            self.refused_ms.append(milliseconds)
            return
        self.answered_ms.append(milliseconds)
        if timing := _TIMING.search(head):
            self.timings.append(timing[1])

    def mean_ms(self) -> dict[str, float]:
        """Mean of each Server-Timing stage."""
        stages: defaultdict[str, float] = defaultdict(float)
        for timing in self.timings:
            for stage, duration in _STAGE.findall(timing):
                stages[stage.decode()] += float(duration)
        return {stage: total / len(self.timings) for stage, total in stages.items()}


class Connection(asyncio.Protocol):
    """One keep-alive connection with at most one request on its way.

    Args:
        tally: where answers are noted.
        on_free: called when an answer has come, or the connection has ended, and nothing is on its way any more.

    Attributes:
        has_answered: whether the server has answered on it at least once.
    """

    def __init__(self, tally: Tally, on_free: Callable[[Connection], None]) -> None:
        self._tally = tally
        self._on_free = on_free
        self._transport: asyncio.Transport | None = None
        self._received = b""
        self._since: float | None = None
        self.has_answered = False

    @property
    def is_open(self) -> bool:
        """Whether another request can be sent."""
        return self._transport is not None and not self._transport.is_closing()

    @property
    def is_busy(self) -> bool:
        """Whether a request is on its way."""
        return self._since is not None

    def send(self, request: bytes, since: float) -> None:
        """Send a request whose latency counts from the second `since` of `time.perf_counter`."""
        assert self._transport is not None
        self._since = since
        self._transport.write(request)

    def close(self) -> None:
        """End the connection; a request that is on its way counts as broken."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but name

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if self._received:
            data = self._received + data
        head_end = data.find(HEAD_END)
        length = _LENGTH.search(data, 0, head_end) if head_end >= 0 else None
        if head_end >= 0 and length is None:
            raise LoadError(f"expected a Content-Length in every answer, found {data[:80]!r}")
        if length is None or len(data) < head_end + len(HEAD_END) + int(length[1]) or self._since is None:
            self._received = data
            return
        self._received = b""  # one request at a time: nothing comes after its answer
        head = data[:head_end]
        self._tally.add(int(head[9:12]), 1000 * (time.perf_counter() - self._since), head)
        self._since = None
        self.has_answered = True
        if _CLOSE.search(head) and self._transport is not None:
            self._transport.close()
        else:
            self._on_free(self)

    def connection_lost(self, error: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        if self._since is not None:
            self._tally.broken += 1
            self._since = None
        self._transport = None
        self._on_free(self)


class Generator:
    """Sends requests to one server over a fixed number of connections, which it renews when the server closes them.

    Args:
        host: of the server.
        port: of the server.
        requests: whole HTTP requests, sent in turn.
        connections: how many to open.
    """

    def __init__(self, host: str, port: int, requests: Sequence[bytes], connections: int) -> None:
        self._host = host
        self._port = port
        self._requests = itertools.cycle(requests)
        self._size = connections
        self._tally = Tally()
        self._open: set[Connection] = set()
        self._connecting: set[asyncio.Task[None]] = set()
        self._idle: deque[Connection] = deque()
        self._backlog: deque[float] = deque()
        self._arrivals: Iterator[float] | None = None
        self._next_due: float | None = None
        self._sent = 0
        self._started = 0.0
        self._ends = 0.0
        self._is_over = asyncio.Event()

    async def closed_loop(self, seconds: float) -> Tally:
        """Each connection sends its next request when it has the answer to the last."""
        await self._begin(seconds)
        for _ in range(len(self._idle)):
            self._on_free(self._idle.popleft())
        return await self._finish(seconds)

    async def open_loop(self, gaps: Iterable[float], seconds: float) -> Tally:
        """Requests are due at their times whatever the server does; their latency counts from those times.

        Args:
            gaps: seconds between a request and the next; read as long as `seconds` last.
            seconds: how long requests are due.
        """
        await self._begin(seconds)
        times = itertools.islice(itertools.accumulate(gaps, initial=self._started), MAX_REQUESTS)
        self._arrivals = itertools.takewhile(lambda due: due < self._ends, times)
        self._next_due = next(self._arrivals, None)
        self._send_due()
        return await self._finish(seconds)

    async def _begin(self, seconds: float) -> None:
        await self._connect_all()
        self._tally.busy_seconds = -time.thread_time()
        self._started = time.perf_counter()
        self._ends = self._started + seconds

    def _send_due(self) -> None:
        """Send, or put off, every request whose time has come, and come back for the next."""
        assert self._arrivals is not None
        while self._next_due is not None and self._next_due <= time.perf_counter():
            self._backlog.append(self._next_due)
            self._next_due = next(self._arrivals, None)
        self._send_backlog()
        if self._next_due is not None:
            delay = max(TICK_SECONDS, self._next_due - time.perf_counter())
            asyncio.get_running_loop().call_later(delay, self._send_due)

    def _send_backlog(self) -> None:
        while self._backlog and self._idle:
            connection = self._idle.popleft()
            if connection.is_open:
                connection.send(next(self._requests), self._backlog.popleft())

    def _on_free(self, connection: Connection) -> None:
        now = time.perf_counter()
        if not connection.is_open:
            self._open.discard(connection)
            if now < self._ends and connection.has_answered:
                self._connect_soon()
        elif self._arrivals is not None:
            self._idle.append(connection)
            self._send_backlog()
        elif now < self._ends and self._sent < MAX_REQUESTS:
            self._sent += 1
            connection.send(next(self._requests), now)
        self._note_end(now)

    def _note_end(self, now: float) -> None:
        nothing_due = now >= self._ends and self._next_due is None and not self._backlog
        if nothing_due and not any(connection.is_busy for connection in self._open):
            self._is_over.set()

    async def _finish(self, seconds: float) -> Tally:
        loop = asyncio.get_running_loop()
        # A tick later, since a timer may be early by a fraction of one, and nothing else may happen afterwards.
        loop.call_later(seconds + TICK_SECONDS, lambda: self._note_end(time.perf_counter()))
        try:
            await asyncio.wait_for(self._is_over.wait(), seconds + LAST_ANSWERS_SECONDS)
        except TimeoutError:
            self._tally.broken += len(self._backlog)
        self._tally.seconds = max(seconds, time.perf_counter() - self._started)
        self._tally.busy_seconds += time.thread_time()
        self._next_due = None
        for task in self._connecting:
            task.cancel()
        for connection in list(self._open):
            connection.close()
        return self._tally

    async def _connect_all(self) -> None:
        try:
            await asyncio.wait_for(asyncio.gather(*(self._connect() for _ in range(self._size))), CONNECT_SECONDS)
        except (OSError, TimeoutError) as error:
            raise LoadError(f"cannot open {self._size} connections to {self._host}:{self._port}: {error}") from None

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(
            lambda: Connection(self._tally, self._on_free), self._host, self._port
        )
        self._open.add(connection)
        self._idle.append(connection)

    def _connect_soon(self) -> None:
        """Replace a connection that the server has closed."""

        async def connect() -> None:
            try:
                await self._connect()
            except OSError:
                self._tally.broken += 1
                return
            self._on_free(self._idle.pop())

        task = asyncio.ensure_future(connect())
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)
