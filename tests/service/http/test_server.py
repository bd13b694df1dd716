from __future__ import annotations

import http.client
import signal
import socket
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.bundles import Spec, write_bundle
from tests.service.serving import BODY, HEAD, Process, ask, blocked, in_this_process, running, wait_for_metric


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundles") / "mach"
    write_bundle(path, Spec(name="mach"))
    return path


class Client:
    """Asks without a pause on a kept connection until the server says that it shuts down."""

    def __init__(self, process: Process) -> None:
        self.port = process.port
        self.statuses: list[int] = []
        self.has_asked = threading.Event()

    def run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        while 503 not in self.statuses:
            connection.request("POST", "/predict", BODY, {"Content-Type": "application/json"})
            response = connection.getresponse()
            response.read()  # reads to the end and, on Connection: close, reconnects with the next request
            self.statuses.append(response.status)
            self.has_asked.set()
        connection.close()


def test_a_shutdown_under_load_drops_nothing(bundle: Path) -> None:
    with running("--bundle", bundle, "--drain-seconds", "0.3") as process:
        clients = [Client(process) for _ in range(8)]
        with ThreadPoolExecutor(len(clients)) as pool:
            runs = [pool.submit(client.run) for client in clients]
            for client in clients:
                client.has_asked.wait()
            process.process.send_signal(signal.SIGTERM)
            for run in runs:
                run.result()
        assert process.wait() == 0
    for client in clients:
        assert set(client.statuses[:-1]) == {200}
        assert client.statuses[-1] == 503


def test_after_sigterm_readiness_is_red_at_once_while_queries_are_answered(bundle: Path) -> None:
    with running("--bundle", bundle, "--drain-seconds", "3600") as process:
        assert ask(process.port, "/readyz")[0] == 200
        process.process.send_signal(signal.SIGTERM)
        process.wait_for("SIGTERM: shutting down")
        status, body, headers = ask(process.port, "/readyz")
        assert (status, headers["Connection"]) == (503, "close")
        assert b"still answering" in body
        status, _, headers = ask(process.port)
        assert (status, headers["Connection"]) == (200, "close")
        process.process.send_signal(signal.SIGTERM)
        assert process.wait() == 1
    assert any("SIGTERM: ending at once" in line["message"] for line in process.log)


def test_sigint_does_not_wait_for_load_balancers(bundle: Path) -> None:
    with running("--bundle", bundle, "--drain-seconds", "3600") as process:
        ask(process.port)
        assert process.stop(signal.SIGINT) == 0


def test_an_idle_connection_does_not_hold_up_the_exit(bundle: Path) -> None:
    with running("--bundle", bundle, "--drain-seconds", "0") as process, process.connect() as idle:
        idle.sendall(HEAD + BODY)
        assert idle.recv(15) == b"HTTP/1.1 200 OK"
        assert process.stop() == 0


def test_a_request_that_has_begun_is_answered(bundle: Path) -> None:
    with running("--bundle", bundle, "--drain-seconds", "0") as process, process.connect() as connection:
        connection.sendall(HEAD + BODY[:5])
        while b"xmc_inflight_requests 2.0" not in ask(process.port, "/metrics")[1]:
            continue  # until the request that has begun is seen beside the one that looks
        process.process.send_signal(signal.SIGTERM)
        process.wait_for("SIGTERM: shutting down")
        while ask(process.port)[0] != 503:
            continue  # until new queries are refused
        connection.sendall(BODY[5:])
        assert connection.recv(15) == b"HTTP/1.1 200 OK"
        assert process.wait() == 0


def test_a_bundle_that_cannot_be_trusted_ends_the_process_with_a_sentence(bundle: Path, tmp_path: Path) -> None:
    with running("--bundle", bundle, "--bundle", tmp_path, until="manifest.json") as process:
        assert process.wait() == 1
    (fault,) = [line for line in process.log if line["level"] == "critical"]
    assert str(tmp_path / "manifest.json") in fault["message"]
    assert "stack" not in fault


def test_a_taken_port_ends_the_process(bundle: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for flag in ("--port", "--metrics-port"):
            with pytest.raises(AssertionError, match="ddress already in use"), running("--bundle", bundle, flag, port):
                pass


def test_metrics_have_a_port_of_their_own(bundle: Path) -> None:
    with running("--bundle", bundle, "--metrics-port", "0", "--drain-seconds", "0") as process:
        (line,) = [line["message"] for line in process.log if "metrics on" in line["message"]]
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(line.removeprefix("metrics on "), timeout=60) as response:
            assert b"xmc_model_ready{" in response.read()
        assert process.stop() == 0


def test_a_client_that_leaves_takes_its_queries_out_of_the_queue(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with in_this_process(bundle) as (service, port):
        engine = service.engine
        labels = f'{{model="mach",version="{service.model.version}"}}'
        with (
            blocked(engine, monkeypatch) as wants_to_run,
            socket.create_connection(("127.0.0.1", port)) as stays,
        ):
            stays.sendall(HEAD + BODY)
            wants_to_run.wait()
            with socket.create_connection(("127.0.0.1", port)) as leaves:
                leaves.sendall(HEAD + BODY)
                wait_for_metric(port, f"xmc_queue_rows{labels} 1.0")
            wait_for_metric(port, 'xmc_requests_total{code="499",endpoint="/predict",model="mach"} 1.0')
        wait_for_metric(port, f"xmc_cancelled_total{labels} 1.0")
        assert ask(port)[0] == 200
        wait_for_metric(port, f"xmc_batch_rows_sum{labels} 2.0")
