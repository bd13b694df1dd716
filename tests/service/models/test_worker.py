"""The processes that compute, as processes."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from service.batching.channel import Connection, SharedCount
from service.errors import BundleError, EngineFailed
from service.models.launch import Launched, Loaded, Order, launch
from service.settings import Settings
from tests.bundles import Spec, write_bundle
from tests.service.models.processes import children_of
from tests.service.serving import TEXT, ask, running

PATIENCE_SECONDS = 60
# Of each the log has two stacks of a thousand characters and more: together more than a pipe takes.
FAILURES = 100
# What no process that speaks HTTP needs.
COMPUTING = ("onnxruntime", "faiss", "numba", "tokenizers", "scipy")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("worker") / "bundle"
    write_bundle(folder, Spec())
    return folder


def worker_of(parent: int) -> int:
    """The one child of a process."""
    (child,) = children_of(parent)
    return child


def start(bundle: Path) -> Launched:
    return launch(Order(bundle, Settings(device="cpu", threads=1)))


def test_the_process_that_speaks_http_loads_nothing_that_computes() -> None:
    program = "import json, sys, service.http.server; print(json.dumps(sorted(sys.modules)))"
    loaded = json.loads(subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout)
    assert not {*COMPUTING, "pyarrow", "opentelemetry.sdk"}.intersection(loaded)


def test_a_model_whose_process_dies_turns_health_red_and_leaves_nobody_waiting(bundle: Path) -> None:
    with running("--bundle", bundle) as service:
        assert ask(service.port)[0] == 200
        os.kill(worker_of(service.process.pid), signal.SIGKILL)
        while ask(service.port, "/livez")[0] == 200:
            continue
        for path in ("/readyz", "/livez"):
            status, body, _ = ask(service.port, path)
            assert (status, b"or restart the service" in body) == (503, True)
        assert ask(service.port)[0] == 503
        assert 'xmc_model_resident_bytes{model="tiny"' in ask(service.port, "/metrics")[1].decode()
        assert service.stop(signal.SIGINT) == 0


def test_a_worker_ends_with_the_process_that_started_it(bundle: Path) -> None:
    with running("--bundle", bundle) as service:
        worker = os.pidfd_open(worker_of(service.process.pid))
        service.process.kill()
        service.process.wait()
        ending = select.poll()  # unlike select, it takes descriptors of any number
        ending.register(worker, select.POLLIN)
        ended = ending.poll(1000 * PATIENCE_SECONDS)
        os.close(worker)
        assert ended


def test_signals_to_a_worker_are_for_the_process_that_started_it_to_obey(bundle: Path) -> None:
    with running("--bundle", bundle) as service:
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(worker_of(service.process.pid), number)
        assert ask(service.port)[0] == 200


def test_a_worker_says_what_it_has_loaded_and_ends_with_its_connection(bundle: Path) -> None:
    launched = start(bundle)
    loaded = launched.wait_until_loaded()
    assert (loaded.manifest.name, loaded.device, loaded.limits.queue_rows) == ("tiny", "cpu", 64)
    launched.end.close()
    launched.proposals.close()
    assert launched.process.wait() == 0


def test_a_worker_says_what_it_has_against_a_bundle(tmp_path: Path) -> None:
    launched = start(tmp_path)
    with pytest.raises(BundleError, match=str(tmp_path)):
        launched.wait_until_loaded()
    launched.end.close()
    launched.proposals.close()
    assert launched.process.wait() == 1


def test_a_worker_that_dies_while_it_loads_is_no_riddle(bundle: Path) -> None:
    launched = start(bundle)
    launched.process.kill()
    with pytest.raises(BundleError, match=r"the process that loads it ended with code -9"):
        launched.wait_until_loaded()
    launched.end.close()
    launched.proposals.close()


def test_whoever_waits_for_a_worker_hears_that_it_was_abandoned(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when its descriptor is somebody else's by then."""
    launched = start(bundle)
    number = launched.end.fileno()
    receive_one = Connection.receive_one
    with ExitStack() as others:

        def receive_later(connection: Connection) -> object:
            launched.abandon()
            taken: set[int] = set()
            while number not in taken:
                pair = socket.socketpair()
                taken |= {others.enter_context(end).fileno() for end in pair}
                for end in pair:
                    end.send(b"x")  # so that nobody has to wait in vain
            return receive_one(connection)

        monkeypatch.setattr(Connection, "receive_one", receive_later)
        with pytest.raises(BundleError, match="ended with code -9"):
            launched.wait_until_loaded()


def test_a_worker_that_does_not_end_is_ended(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.models.launch._EXIT_SECONDS", 0.01)
    launched = start(bundle)
    launched.wait_until_loaded()
    launched.end_process()  # its connection is still open
    assert launched.process.wait() == -signal.SIGKILL
    launched.end.close()


def test_a_worker_whose_log_nobody_reads_computes_on(bundle: Path) -> None:
    ours, theirs = socket.socketpair()
    our_proposals, their_proposals = socket.socketpair()
    left = os.memfd_create("left")
    os.truncate(left, SharedCount.BYTES)
    program = f"""
from service.models import labelling, worker
def fail(*_): raise RuntimeError("x" * 1000)
labelling.Labeller.run = fail
worker.main({theirs.fileno()}, {their_proposals.fileno()}, {left}, "json")
"""
    command, files = [sys.executable, "-c", program], (theirs.fileno(), their_proposals.fileno(), left)
    process = subprocess.Popen(command, pass_fds=files, stderr=subprocess.PIPE, text=True)
    theirs.close()
    their_proposals.close()
    os.close(left)
    with process, ours, our_proposals:
        connection = Connection(ours)
        connection.send(Order(bundle, Settings(device="cpu", threads=1)))
        assert isinstance(connection.receive_one(), Loaded)
        for number in range(FAILURES):
            now = time.monotonic()
            connection.send([(number, [(TEXT, 1, None, None, False)], now + PATIENCE_SECONDS, now)])
            while not (closed := connection.receive_one().closed):
                continue
            ((answered, error),) = closed
            assert (answered, type(error)) == (number, EngineFailed)
        assert process.stderr is not None
        causes = 0
        while causes < FAILURES:
            causes += "incident" in json.loads(process.stderr.readline())
        ours.shutdown(socket.SHUT_RDWR)
        assert process.wait() == 0


def test_resident_memory_is_that_of_the_process(bundle: Path) -> None:
    with running("--bundle", bundle) as service:
        exposed = ask(service.port, "/metrics")[1].decode()
        (line,) = [line for line in exposed.splitlines() if line.startswith("xmc_model_resident_bytes{")]
        assert float(line.split()[1]) > 50e6
