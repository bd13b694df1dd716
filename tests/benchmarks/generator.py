"""How many requests a second `xmc-serve bench` sends on one core, against a server that does nothing.

    python -m tests.benchmarks.generator

The server is a process of its own, on another core where there is one, and writes the same answer for whatever comes.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path
from typing import cast

import uvloop

from service.measuring.bench import Plan, bench, table

SECONDS = 3.0
CONCURRENCY = (1, 8, 64, 256)
RATES = (10_000.0, 20_000.0)

BODY = b"x" * 600  # about five labels with their texts
ANSWER = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n"
    b"server-timing: queue;dur=0.101, tokenize;dur=0.057, encode;dur=0.316, search;dur=0.283\r\n"
    b"x-request-id: 0123456789abcdef0123456789abcdef\r\n\r\n" % len(BODY)
) + BODY


class Static(asyncio.Protocol):
    """Answers whatever comes, without reading it."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._transport.write(ANSWER)


def main() -> None:
    """Print a table of closed loops and one of open loops."""
    cores = sorted(os.sched_getaffinity(0))
    here, there = multiprocessing.Pipe()
    # Started afresh: a forked process would share this one's event loop policy and affinity.
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(there, cores[-1]), daemon=True)
    server.start()
    url = f"http://127.0.0.1:{here.recv()}"
    os.sched_setaffinity(0, {cores[0]})
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("a fast web server\n")
        file.flush()
        queries = Path(file.name)
        print(table(bench(Plan(url, concurrency=CONCURRENCY, seconds=SECONDS, queries=queries))))
        for arrivals in ("constant", "poisson"):
            print(table(bench(Plan(url, rates=RATES, arrivals=arrivals, seconds=SECONDS, queries=queries))))
    server.terminate()


def serve(port: Connection, core: int) -> None:
    """Answer on a free port, which is sent through the pipe, for ever."""
    os.sched_setaffinity(0, {core})

    async def forever() -> None:
        listener = await asyncio.get_running_loop().create_server(Static, "127.0.0.1", 0)
        port.send(listener.sockets[0].getsockname()[1])
        await listener.serve_forever()

    uvloop.run(forever())


if __name__ == "__main__":
    main()
