"""What goes wrong around a running service, done to real processes; `service/README.md` has the table."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from service.bundle import layout
from service.lines import MOST_BYTES
from service.memory import resident_bytes
from tests.bundles import METHODS, Spec, write_bundle
from tests.service.serving import BODY, HEAD, TEXT, Process, ask, running, serving, wait_for_metric

IDLE_CONNECTIONS = 10_000
STORM = 300
# Of a line that holds what was asked: as much as a request may.
LONG = json.dumps({"queries": ["x" * 50_000] * 20}).encode()
LINGER_NOT = struct.pack("ii", 1, 0)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faults") / "bundle"
    write_bundle(folder, Spec())
    return folder


def answers(service: Process) -> str:
    """The labels that the service gives."""
    status, body, _ = ask(service.port)
    assert status == 200
    return json.dumps(json.loads(body)["predictions"])


@contextmanager
def idle(service: Process, count: int) -> Iterator[list[socket.socket]]:
    """Connections that say nothing."""
    connections: list[socket.socket] = []
    try:
        for _ in range(count):
            connections.append(service.connect())
        yield connections
    finally:
        for connection in connections:
            connection.close()


@pytest.mark.parametrize(("method", "index"), [*((method, "flat") for method in METHODS), ("unidec", "ivf")])
def test_a_bundle_that_is_deleted_is_served_on(tmp_path: Path, method: str, index: str) -> None:
    write_bundle(tmp_path / "bundle", Spec(method=method, index=index))
    with running("--bundle", tmp_path / "bundle") as service:
        before = answers(service)
        shutil.rmtree(tmp_path / "bundle")
        assert answers(service) == before
        assert ask(service.port, "/readyz")[0] == 200


def test_a_file_that_is_replaced_changes_nothing(bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(bundle, tmp_path / "bundle")
    with running("--bundle", tmp_path / "bundle") as service:
        before = answers(service)
        (tmp_path / "other").write_bytes(b"\0" * (bundle / layout.MACH_BUCKETS).stat().st_size)
        (tmp_path / "other").rename(tmp_path / "bundle" / layout.MACH_BUCKETS)
        assert answers(service) == before


def test_a_mapped_file_that_is_cut_off_ends_its_model_alone(bundle: Path, tmp_path: Path) -> None:
    """The kernel ends who reads what is no longer there."""
    shutil.copytree(bundle, tmp_path / "bundle")
    with running("--bundle", tmp_path / "bundle") as service:
        answers(service)
        os.truncate(tmp_path / "bundle" / layout.MACH_BUCKETS, 0)
        status, body, _ = ask(service.port)
        assert (status, json.loads(body)["title"]) == (500, "Internal error")
        status, body, _ = ask(service.port)
        assert (status, json.loads(body)["title"]) == (503, "Not ready")
        assert ask(service.port, "/livez")[0] == 503
        assert ask(service.port, "/v1/models")[0] == 200


@pytest.mark.parametrize("days", [-365, 365])
def test_a_clock_that_jumps_hurries_and_delays_nobody(bundle: Path, monkeypatch: pytest.MonkeyPatch, days: int) -> None:
    with serving(bundle) as service:
        real = time.time
        monkeypatch.setattr(time, "time", lambda: real() + days * 86_400)
        response = service.predict({"queries": [TEXT], "timeout_ms": 10_000})
        assert response.status_code == 200
        assert service.client.get("/readyz").status_code == 200


def test_a_storm_of_clients_that_leave_harms_nobody_who_stays(bundle: Path) -> None:
    with running("--bundle", bundle) as service:
        for number in range(STORM):
            with service.connect() as client:
                client.sendall((HEAD + BODY)[: len(HEAD) + (number % 2) * len(BODY)])  # with a body and without
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)  # closed by a reset
            if number % 50 == 0:
                answers(service)
        answers(service)
        # What asks is in flight itself.
        wait_for_metric(service.port, "xmc_inflight_requests 1.0")
        (queued,) = [line for line in metrics(service) if line.startswith("xmc_queue_rows{")]
        assert queued.endswith(" 0.0")


def test_a_low_limit_of_open_files_is_raised(bundle: Path) -> None:
    lowered = 256
    _, high = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert high > 2 * lowered
    lower = ("prlimit", f"--nofile={lowered}:{high}")
    with running("--bundle", bundle, within=lower) as service, idle(service, 2 * lowered):
        answers(service)


def test_ten_thousand_idle_connections_leave_room_for_a_query(bundle: Path) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most < IDLE_CONNECTIONS + 1000:
        pytest.skip(f"a process may open {most} files here, too few for {IDLE_CONNECTIONS} connections")
    with running("--bundle", bundle) as service:
        answers(service)
        before = resident_bytes(service.process.pid)
        with idle(service, IDLE_CONNECTIONS) as connections:
            answers(service)
            assert ask(service.port, "/readyz")[0] == 200
            # Each is as good as any other.
            connections[-1].sendall(HEAD + BODY)
            assert connections[-1].recv(12) == b"HTTP/1.1 200"
            assert resident_bytes(service.process.pid) - before < IDLE_CONNECTIONS * 20_000
        assert service.stop() == 0


def test_a_log_that_nobody_reads_holds_up_no_request_and_tells_what_is_lost(bundle: Path) -> None:
    arguments = ("--bundle", bundle, "--access-log", "all", "--log-queries", "on", "--drain-seconds", "0")
    asked = 2 * MOST_BYTES // len(LONG)
    with running(*arguments) as service:
        for _ in range(asked):
            assert ask(service.port, body=LONG)[0] == 200
        (counted,) = [line for line in metrics(service) if line.startswith("xmc_log_lines_dropped_total ")]
        asked += 1  # for the metrics
        service.wait_for("lines of this log are lost")
        assert service.stop() == 0
    kept = [line for line in service.log if line["logger"] == "service.telemetry.access_log"]
    told = [re.match(r"(\d+) lines of this log are lost", line["message"]) for line in service.log]
    lost = sum(int(found[1]) for found in told if found)
    assert len(kept) + lost == asked
    assert 0 < float(counted.split()[1]) <= lost


@pytest.mark.parametrize(("signals", "code"), [(1, 0), (2, 1)])
def test_a_log_that_nobody_reads_holds_up_no_exit(bundle: Path, signals: int, code: int) -> None:
    arguments = ("--bundle", bundle, "--access-log", "all", "--log-queries", "on")
    with running(*arguments, "--drain-seconds", "0" if signals == 1 else "3600") as service:
        assert ask(service.port, body=LONG)[0] == 200
        for _ in range(signals - 1):
            service.process.send_signal(signal.SIGTERM)
            while ask(service.port, "/readyz")[0] == 200:
                continue  # until the first signal has come
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait() == code


def metrics(service: Process) -> list[str]:
    return ask(service.port, "/metrics")[1].decode().splitlines()
