"""The prediction log as the process that speaks HTTP knows it: a sample of its answers, which another process writes.

    answers ──▶ batch (event loop) ──▶ thread ──▶ `service.telemetry.writer`, elsewhere

A process of its own, because turning rows into columns holds Python's lock for tens of milliseconds, and the library
that does it takes 40 MB. Whatever does not keep up loses rows, which are counted; nobody waits for it.
"""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import os
import queue
import random
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

from service.batching.channel import Connection, SharedCount
from service.errors import SettingsError
from service.http.exchange import Exchange
from service.models.launch import start_process
from service.settings import LogFormat, variable
from service.telemetry.records import Record

logger = logging.getLogger(__name__)

OK = 200
# Requests leave together: a wake-up costs the event loop more than a record does.
BATCH_SECONDS = 0.25
BATCH_REQUESTS = 4096
BATCHES = 4
# For the last rows of a shutdown.
EXIT_SECONDS = 10

_PROGRAM = "from service.telemetry.writer import main; main({end}, {lost}, {folder!r}, {log_format!r})"


class PredictionLog:
    """Samples answers and sends them to the writer; it is called on the event loop.

    Args:
        folder: where the writer puts its files; made if it is not there.
        share: of the requests that are written.
        log_format: of the writer's own log.
        count_dropped: told of predictions that will not be written, on any thread.

    Raises:
        SettingsError: pyarrow is not installed, or the folder cannot be made or written to.
    """

    def __init__(self, folder: Path, share: float, log_format: LogFormat, count_dropped: Callable[[int], None]) -> None:
        _check(folder)
        self._folder = folder
        self._share = share
        self._log_format = log_format
        self._count_dropped = count_dropped
        self._unsent: list[Record] = []
        self._timer: asyncio.TimerHandle | None = None
        self._batches: queue.Queue[list[Record] | None] = queue.Queue(BATCHES)
        self._thread = threading.Thread(target=self._send_all, name="prediction-log", daemon=True)
        self._seen_lost = 0
        self._process: subprocess.Popen[bytes]
        self._end: socket.socket
        self._lost: SharedCount

    def start(self) -> None:
        """Start the process that writes, and the thread that sends to it."""
        self._end, theirs = socket.socketpair()
        lost = os.memfd_create("xmcserve-lost")
        os.truncate(lost, SharedCount.BYTES)
        program = _PROGRAM.format(
            end=theirs.fileno(), lost=lost, folder=str(self._folder.resolve()), log_format=self._log_format
        )
        with theirs:
            self._process = start_process(program, theirs.fileno(), lost)
        self._lost = SharedCount(lost)
        os.close(lost)
        self._thread.start()

    def __call__(self, exchange: Exchange, endpoint: str, seconds: float) -> None:
        """Note the answer to a request, if it has one and is drawn.

        Args:
            exchange: with its status and what was asked.
            endpoint: the route's template.
            seconds: its duration.
        """
        pending = exchange.pending
        if pending is None or exchange.status != OK or random.random() >= self._share:
            return
        if len(self._unsent) >= BATCH_REQUESTS:
            self._count_dropped(len(pending.queries))
            return
        self._unsent.append(
            Record(
                time_us=time.time_ns() // 1000,
                request_id=exchange.request_id,
                model=pending.model.name,
                version=pending.model.version,
                k=pending.k,
                queries=pending.queries,
                predictions=[served.result[0] for served in pending.future.result()],
                seconds=seconds,
            )
        )
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(BATCH_SECONDS, self._hand_over)

    async def close(self) -> None:
        """Have the last rows written, and wait for the end of the process."""
        if self._timer is not None:
            self._timer.cancel()
        batch, self._unsent = self._unsent, []
        await asyncio.to_thread(self._finish, batch)

    def _hand_over(self) -> None:
        """Give the thread what has come; if it has no room, later."""
        self._timer = None
        try:
            self._batches.put_nowait(self._unsent)
        except queue.Full:
            self._timer = asyncio.get_running_loop().call_later(BATCH_SECONDS, self._hand_over)
        else:
            self._unsent = []

    # On threads ------------------------------------------------------------------------------------------------------

    def _send_all(self) -> None:
        connection, has_died = Connection(self._end), False
        while (batch := self._batches.get()) is not None:
            connection.send(batch)
            if self._process.poll() is not None:
                if not has_died:
                    logger.error("the prediction log's process has ended: nothing more is written until a restart")
                has_died = True
                self._count_dropped(sum(len(record.queries) for record in batch))
            self._count_lost()
        connection.close()

    def _finish(self, batch: list[Record]) -> None:
        for last in (batch, None):
            try:
                self._batches.put(last, timeout=EXIT_SECONDS)
            except queue.Full:
                self._count_dropped(sum(len(record.queries) for record in batch))
                self._process.kill()  # by which the thread is freed
                self._batches.put(None)
                break
        self._thread.join(EXIT_SECONDS)
        try:
            self._process.wait(EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            logger.error("the prediction log's process is ended, because it does not end by itself")
            self._process.kill()
            self._process.wait()
        self._count_lost()
        self._end.close()

    def _count_lost(self) -> None:
        """Count what the process could not write."""
        lost = self._lost.value
        if lost > self._seen_lost:
            self._count_dropped(lost - self._seen_lost)
            self._seen_lost = lost


def _check(folder: Path) -> None:
    if importlib.util.find_spec("pyarrow") is None:
        raise SettingsError(
            f"{variable('prediction_log')} needs the extra predictions (pip install 'xmcserve[predictions]')"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"{variable('prediction_log')}: expected a folder, found {folder}: {error}") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise SettingsError(f"{variable('prediction_log')}: expected a folder that may be written to, found {folder}")
