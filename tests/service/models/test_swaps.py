"""Models that are swapped while real processes serve and are killed."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from service.access.keys import line_of, new_secret
from tests.bundles import Spec, write_bundle
from tests.service.models.processes import children_of, has_ended
from tests.service.serving import Process, ask, running

SECRET = new_secret()
SWAPS = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("swaps")
    for number in range(2):
        write_bundle(folder / f"v{number}", Spec(name="tags", seed=number))
    (folder / "keys").write_text(line_of("root", SECRET, ()))
    return folder


@contextmanager
def administered(folder: Path) -> Iterator[Process]:
    arguments = ("--bundle", folder / "v0", "--models-dir", folder, "--admin-keys-file", folder / "keys")
    with running(*arguments) as service:
        yield service


def admin(service: Process, path: str, body: object = None) -> Any:
    """The JSON that an endpoint answers to the administrator."""
    headers = {"X-API-Key": SECRET, "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(f"{service.url}{path}", data, headers)) as response:
        return json.load(response)


def load_in_background(service: Process) -> str:
    """Where the state of a load of the other version is told, once its process is there."""
    before = children_of(service.process.pid)
    number = admin(service, "/admin/models", {"bundle": "v1"})["load"]
    while children_of(service.process.pid) == before:
        continue
    return f"/admin/loads/{number}"


class Clients(threading.Thread):
    """One after the other, until told to stop, they count the statuses of their answers."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self._port = port
        self._is_over = threading.Event()
        self.statuses: Counter[int] = Counter()

    def run(self) -> None:
        while not self._is_over.is_set():
            self.statuses[ask(self._port)[0]] += 1

    def stop(self) -> None:
        self._is_over.set()
        self.join()


def test_swaps_fail_nobody_and_leave_no_process_behind(folder: Path) -> None:
    with administered(folder) as service:
        clients = [Clients(service.port) for _ in range(2)]
        for client in clients:
            client.start()
        seen = children_of(service.process.pid)
        for swap in range(SWAPS):
            assert admin(service, "/admin/models", {"bundle": f"v{1 - swap % 2}", "wait": True})["state"] == "serving"
            seen |= children_of(service.process.pid)
        for client in clients:
            client.stop()
        statuses = clients[0].statuses + clients[1].statuses
        assert set(statuses) == {200}
        assert len(seen) == 1 + SWAPS
        while len(children_of(service.process.pid)) > 1:  # who was replaced has ended, and its memory is back
            continue
        assert service.stop() == 0


def test_a_loading_process_that_is_killed_is_a_load_that_failed(folder: Path) -> None:
    with administered(folder) as service:
        before = children_of(service.process.pid)
        where = load_in_background(service)
        (loading,) = children_of(service.process.pid) - before
        os.kill(loading, signal.SIGKILL)
        while (load := admin(service, where))["state"] == "loading":
            continue
        assert load["state"] == "failed"
        assert "v1: the process that loads it ended with code -9" in load["reason"]
        assert ask(service.port)[0] == 200


def test_a_server_that_is_killed_in_a_swap_leaves_no_process_behind(folder: Path) -> None:
    with administered(folder) as service:
        load_in_background(service)
        workers = children_of(service.process.pid)
        assert len(workers) == 2
        service.process.kill()
        service.process.wait()
        while not all(has_ended(worker) for worker in workers):
            time.sleep(0.01)
    with administered(folder) as service:  # nothing it needs was lost
        assert ask(service.port)[0] == 200


def test_a_shutdown_gives_a_load_up(folder: Path) -> None:
    with administered(folder) as service:
        load_in_background(service)
        workers = children_of(service.process.pid)
        assert service.stop(signal.SIGINT) == 0
        assert all(has_ended(worker) for worker in workers)


def test_a_stranger_cannot_load(folder: Path) -> None:
    with administered(folder) as service:
        request = urllib.request.Request(f"{service.url}/admin/models", b"{}", {"X-API-Key": "xmc_guess"})
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(request)
