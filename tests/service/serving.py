"""The application in this process, and the command in a process of its own, over tiny real bundles."""

from __future__ import annotations

import gc
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from service.access.keys import line_of, new_secret
from service.batching.channel import Connection
from service.engine import Answer, Engine
from service.http.app import create_app
from service.http.lifecycle import Lifecycle, Phase
from service.http.middleware import Gate
from service.http.server import Server
from service.metrics import Metrics
from service.models.launch import Launched, Order
from service.models.model import Model
from service.models.registry import Registry
from service.models.worker import Worker
from service.settings import Settings
from tests.service.blocking import shared_count

TEXT = "a fast web server"
BODY = json.dumps({"queries": [TEXT]}).encode()
HEAD = (
    f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(BODY)}\r\n\r\n"
).encode()


@dataclass
class Service:
    """An application with its models loaded, and a client for it."""

    client: TestClient
    gate: Gate
    lifecycle: Lifecycle
    metrics: Metrics
    workers: list[Worker]

    @property
    def engine(self) -> Engine:
        return self.workers[0].engine

    @property
    def registry(self) -> Registry:
        return self.gate._registry

    @property
    def model(self) -> Model:
        return self.registry.models[0]

    def predict(self, body: object, **headers: str) -> Any:
        return self.client.post("/predict", json=body, headers=headers)


class Workers:
    """Starts workers on threads of this process, so that a test can hold up or break their engines."""

    def __init__(self) -> None:
        self.all: list[Worker] = []

    def launch(self, order: Order) -> Launched:
        ours, theirs = socket.socketpair()
        our_proposals, their_proposals = socket.socketpair()
        left = shared_count()
        worker = Worker(Connection(theirs), Connection(their_proposals), left)
        self.all.append(worker)
        Connection(ours).send(order)
        thread = _Thread(worker, theirs, their_proposals)
        return Launched(order, ours, our_proposals, left, thread, time.perf_counter())


class _Thread:
    """A worker's thread as a process."""

    def __init__(self, worker: Worker, end: socket.socket, proposals: socket.socket) -> None:
        self.pid = os.getpid()
        self._end = end
        self._proposals = proposals
        self._thread = threading.Thread(target=self._work, args=(worker,), daemon=True)
        self._thread.start()

    def _work(self, worker: Worker) -> None:
        worker.work()
        self._end.close()
        self._proposals.close()

    def wait(self, timeout: float | None = None) -> int:
        self._thread.join(timeout)
        return 0

    def kill(self) -> None:
        with suppress(OSError):  # it has ended by itself
            self._end.shutdown(socket.SHUT_RDWR)


def make_service(bundles: tuple[Path, ...], **settings: Any) -> Service:
    """An application whose lifespan has not begun."""
    lifecycle, metrics, workers = Lifecycle(), Metrics(), Workers()
    chosen = Settings(bundles=bundles, device="cpu", threads=1, **settings)
    gate = create_app(
        chosen, lifecycle, metrics, [workers.launch(Order(path, chosen)) for path in bundles], workers.launch
    )
    return Service(TestClient(gate), gate, lifecycle, metrics, workers.all)


@contextmanager
def serving(*bundles: Path, **settings: Any) -> Iterator[Service]:
    """An application that is ready."""
    service = make_service(bundles, **settings)
    with service.client:
        while service.lifecycle.phase is Phase.LOADING and service.lifecycle.failure is None:
            service.client.get("/readyz")
        yield service
    gc.unfreeze()  # or what this service held, mapped files among it, would stay for as long as the tests run


@contextmanager
def administered(bundle: Path, **settings: Any) -> Iterator[Service]:
    """A service whose client has the admin key."""
    secret = new_secret()
    with tempfile.TemporaryDirectory() as place:
        keys = Path(place) / "keys"
        keys.write_text(line_of("root", secret, ()))
        with serving(bundle, admin_keys_file=keys, **settings) as service:
            service.client.headers["x-api-key"] = secret
            yield service


@contextmanager
def blocked(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """An engine that computes nothing until the block ends; the event tells that it would have liked to."""
    wants_to_run, release = threading.Event(), threading.Event()
    run = engine.run

    def run_later(*arguments: Any) -> Answer:
        wants_to_run.set()
        release.wait()
        return run(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(engine, "run", run_later)
        try:
            yield wants_to_run
        finally:
            release.set()


@dataclass
class Process:
    """A running ``xmc-serve run``."""

    process: subprocess.Popen[str]
    port: int
    log: list[dict[str, Any]]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def wait_for(self, message: str) -> dict[str, Any]:
        """Read the log until a line contains the message."""
        return wait_for(self.process, self.log, message)

    def stop(self, sig: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and wait for the exit code."""
        self.process.send_signal(sig)
        return self.wait()

    def wait(self) -> int:
        """Read the rest of the log and wait for the exit code."""
        assert self.process.stderr is not None
        self.log += [json.loads(line) for line in self.process.stderr]
        return self.process.wait()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port))


@contextmanager
def running(*arguments: str | Path, until: str = "ready", within: tuple[str, ...] = ()) -> Iterator[Process]:
    """``xmc-serve run`` on a free port, once its log says `until`; started by another command, if there is one."""
    command = [sys.executable, "-m", "service.cli", "run", "--port", "0", "--log-format", "json", "--device", "cpu"]
    process = subprocess.Popen([*within, *command, *map(str, arguments)], stderr=subprocess.PIPE, text=True)
    with process:
        try:
            log: list[dict[str, Any]] = []
            started = wait_for(process, log, "Uvicorn running on")
            port = int(started["message"].split("://127.0.0.1:")[1].split()[0])
            if not any(until in line["message"] for line in log):
                wait_for(process, log, until)
            yield Process(process, port, log)
        finally:
            if process.poll() is None:
                process.kill()


def wait_for(process: subprocess.Popen[str], log: list[dict[str, Any]], message: str) -> dict[str, Any]:
    assert process.stderr is not None
    for text in process.stderr:
        log.append(json.loads(text))
        if message in log[-1]["message"]:
            return log[-1]
    raise AssertionError(f"the process ended before it logged {message!r}: {log}")


@contextmanager
def in_this_process(*bundles: Path, **changes: Any) -> Iterator[tuple[Service, int]]:
    """A real server on a thread, so that a test can hold up its engine."""
    settings = Settings(bundles=bundles, device="cpu", threads=1, port=0, **changes)
    lifecycle, metrics, workers = Lifecycle(), Metrics(), Workers()
    launched = [workers.launch(Order(path, settings)) for path in bundles]
    gate: Gate = create_app(settings, lifecycle, metrics, launched, workers.launch)
    server = Server(gate, settings, lifecycle, metrics)
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    while ask(port, "/readyz")[0] != 200:
        continue
    try:
        yield Service(None, gate, lifecycle, metrics, workers.all), port  # type: ignore[arg-type]  # no client: real sockets
    finally:
        server.handle_exit(signal.SIGINT, None)
        thread.join()
        gc.unfreeze()


def ask(port: int, path: str = "/predict", body: bytes = BODY) -> tuple[int, Any, http.client.HTTPMessage]:
    """One request on a connection of its own, with a body where it asks for labels."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    if path == "/predict":
        connection.request("POST", path, body, {"Content-Type": "application/json"})
    else:
        connection.request("GET", path)
    response = connection.getresponse()
    answer = response.read()
    connection.close()
    return response.status, answer, response.headers


def wait_for_metric(port: int, line: str) -> None:
    while line not in ask(port, "/metrics")[1].decode().splitlines():
        continue
