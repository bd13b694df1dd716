from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from email.utils import formatdate
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.client import AsyncClient, Call, Client, NoAnswer, Refused, Retries
from service.http.lifecycle import Phase
from service.schemas import FeatureVector, PredictResponse
from tests.bundles import Spec, write_bundle
from tests.service.serving import (
    BODY,
    HEAD,
    TEXT,
    Process,
    Service,
    ask,
    blocked,
    in_this_process,
    running,
    wait_for_metric,
)

# A client's method by name, with its arguments, on a client of its own.
Ask = Callable[..., Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles")
    write_bundle(folder / "mach", Spec(name="mach"))
    write_bundle(folder / "vectors", Spec(input="features", name="vectors", has_label_texts=False))
    return folder


@pytest.fixture(scope="module")
def process(folder: Path) -> Iterator[Process]:
    with running("--bundle", folder / "mach", "--bundle", folder / "vectors", "--drain-seconds", "0") as process:
        yield process


@pytest.fixture(params=["synchronous", "asynchronous"])
def ask_with(request: pytest.FixtureRequest) -> Ask:
    def synchronous(url: str, method: str, *arguments: Any, how: dict[str, Any] | None = None, **options: Any) -> Any:
        with Client(url, **(how or {})) as client:
            return getattr(client, method)(*arguments, **options)

    def asynchronous(url: str, method: str, *arguments: Any, how: dict[str, Any] | None = None, **options: Any) -> Any:
        async def run() -> Any:
            async with AsyncClient(url, **(how or {})) as client:
                return await getattr(client, method)(*arguments, **options)

        return asyncio.run(run())

    return synchronous if request.param == "synchronous" else asynchronous


def test_a_client_needs_nothing_of_a_server() -> None:
    """Nor anything else that the extra does not bring."""
    loaded = "import sys, service.client; print(*{name.partition('.')[0] for name in sys.modules})"
    names = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True).stdout.split()
    assert "httpx" in names
    assert {"fastapi", "uvicorn", "prometheus_client", "tokenizers", "scipy", "numba", "grpc"}.isdisjoint(names)


def local(port: int) -> str:
    return f"http://127.0.0.1:{port}"


def test_texts_get_what_the_interface_answers(process: Process, ask_with: Ask) -> None:
    answer = ask_with(process.url, "predict", [TEXT], k=3, model="mach")
    expected = httpx.post(f"{process.url}/predict", json={"queries": [TEXT], "k": 3, "model": "mach"})
    assert answer == PredictResponse.model_validate_json(expected.content)
    best = answer.predictions[0].labels[0]
    assert ask_with(process.url, "predict", [TEXT], model="mach", min_score=best.score).predictions[0].labels == [best]


def test_features_are_queries_too(process: Process, ask_with: Ask) -> None:
    vector = FeatureVector(indices=[7, 0], values=[0.5, 1])
    answer = ask_with(process.url, "predict", features=[vector], model="vectors")
    body = {"features": [vector.model_dump()], "model": "vectors"}
    assert answer == PredictResponse.model_validate_json(httpx.post(f"{process.url}/predict", json=body).content)


def test_models_tell_what_they_are(process: Process, ask_with: Ask) -> None:
    models = ask_with(process.url, "models")
    assert [model.name for model in models] == ["mach", "vectors"]
    detail = ask_with(process.url, "model", f"mach:{models[0].version}")
    assert (detail.name, detail.version, detail.method) == ("mach", models[0].version, "mach")
    with pytest.raises(Refused) as caught:
        ask_with(process.url, "model", "a/b ü")
    assert caught.value.problem.status == 404


def test_an_error_carries_the_problem_document(process: Process, ask_with: Ask) -> None:
    with pytest.raises(Refused, match="422 Invalid request: k: expected at most 100, found 101") as caught:
        ask_with(process.url, "predict", [TEXT], k=101, model="mach")
    problem = caught.value.problem
    assert (problem.status, problem.title, len(problem.request_id)) == (422, "Invalid request", 32)
    assert caught.value.retry_after_seconds is None


@pytest.mark.parametrize(("option", "value"), [("filter", {"allow": ["a"]}), ("explain", True), ("timeout_ms", 10_000)])
def test_options_are_sent_as_they_are_given(ask_with: Ask, option: str, value: object) -> None:
    with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 44\r\n\r\n" + EMPTY) as (port, heard):
        ask_with(local(port), "predict", [TEXT], how={"api_key": "secret"}, **{option: value})
    head, _, body = heard[0].partition(b"\r\n\r\n")
    assert json.loads(body) == {"queries": [TEXT], option: value}
    assert b"authorization: Bearer secret" in head
    assert b"content-type: application/json" in head


def test_nothing_is_sent_that_is_not_given(ask_with: Ask) -> None:
    with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 44\r\n\r\n" + EMPTY) as (port, heard):
        ask_with(local(port), "predict", [TEXT])
    head, _, body = heard[0].partition(b"\r\n\r\n")
    assert json.loads(body) == {"queries": [TEXT]}
    assert b"authorization" not in head


def test_a_full_queue_is_asked_again_when_it_says(folder: Path, monkeypatch: pytest.MonkeyPatch, ask_with: Ask) -> None:
    with (
        in_this_process(folder / "mach", queue_rows=1, max_queries=1) as (service, port),
        ThreadPoolExecutor(3) as pool,
    ):
        with blocked(service.engine, monkeypatch) as wants_to_run:
            waiting = fill(service, port, pool, wants_to_run)
            with pytest.raises(Refused, match="429 Queue full") as caught:
                ask_with(local(port), "predict", [TEXT], how={"retries": Retries(attempts=1)})
            assert caught.value.retry_after_seconds == 1
            again = pool.submit(ask_with, local(port), "predict", [TEXT])
            wait_for_metric(port, 'xmc_rejected_total{reason="queue_full"} 2.0')
            refused = time.monotonic()
        assert len(again.result().predictions) == 1
        assert time.monotonic() - refused >= 0.9  # the second in Retry-After, less what it took to see the refusal
        assert [one.result()[0] for one in waiting] == [200, 200]


def test_a_server_that_loads_is_asked_again(folder: Path, ask_with: Ask) -> None:
    with in_this_process(folder / "mach") as (service, port), ThreadPoolExecutor(1) as pool:
        service.lifecycle.phase = Phase.LOADING
        assert ask_with(local(port), "ready") is False
        again = pool.submit(ask_with, local(port), "predict", [TEXT])
        wait_for_metric(port, 'xmc_requests_total{code="503",endpoint="/predict",model=""} 1.0')
        service.lifecycle.phase = Phase.SERVING
        assert len(again.result().predictions) == 1
        assert ask_with(local(port), "ready") is True


def test_a_server_that_shuts_down_says_so_and_is_gone(folder: Path, ask_with: Ask) -> None:
    once = {"retries": Retries(attempts=1)}
    with running("--bundle", folder / "mach", "--drain-seconds", "0") as process, process.connect() as connection:
        connection.sendall(HEAD + BODY[:5])
        while b"xmc_inflight_requests 2.0" not in ask(process.port, "/metrics")[1]:
            continue  # until the request that has begun, which holds up the exit, is seen beside the one that looks
        process.process.send_signal(signal.SIGTERM)
        process.wait_for("SIGTERM: shutting down")
        while ask(process.port)[0] != 503:
            continue  # until new queries are refused
        with pytest.raises(Refused, match="503 Shutting down") as caught:
            ask_with(process.url, "predict", [TEXT], how=once)
        assert caught.value.retry_after_seconds == 1
        connection.sendall(BODY[5:])
        assert process.wait() == 0
        with pytest.raises(NoAnswer):
            ask_with(process.url, "predict", [TEXT], how=once)


def test_a_deadline_is_never_asked_again(folder: Path, monkeypatch: pytest.MonkeyPatch, ask_with: Ask) -> None:
    with in_this_process(folder / "mach") as (service, port), blocked(service.engine, monkeypatch):
        with pytest.raises(Refused, match="504 Deadline exceeded"):
            ask_with(local(port), "predict", [TEXT], timeout_ms=20)
        wait_for_metric(port, 'xmc_requests_total{code="504",endpoint="/predict",model="mach"} 1.0')


def test_a_server_that_went_away_comes_back(folder: Path, ask_with: Ask) -> None:
    port = free_port()
    with ThreadPoolExecutor(1) as pool:
        again = pool.submit(
            ask_with, local(port), "predict", [TEXT], how={"retries": Retries(attempts=1000, total_seconds=120)}
        )
        with running("--bundle", folder / "mach", "--port", str(port)):
            assert len(again.result().predictions) == 1


def test_a_server_that_stays_away_is_given_up(ask_with: Ask) -> None:
    url = local(free_port())
    assert ask_with(url, "ready") is False
    with pytest.raises(NoAnswer, match=f"{url}/predict: .*onnect") as caught:
        ask_with(url, "predict", [TEXT], how={"retries": Retries(attempts=2)})
    assert isinstance(caught.value.__cause__, httpx.ConnectError)


def test_a_connection_that_breaks_off_is_asked_again(ask_with: Ask) -> None:
    whole = b"HTTP/1.1 200 OK\r\nContent-Length: 44\r\n\r\n" + EMPTY
    with answering(b"", whole[:-3], whole) as (port, heard):
        assert ask_with(local(port), "predict", [TEXT]).predictions == []
    assert len(heard) == 3


@pytest.mark.parametrize(("retries", "options"), [(Retries(total_seconds=0.2), {}), (Retries(), {"timeout_ms": 50})])
def test_a_server_that_says_nothing_is_given_up(ask_with: Ask, retries: Retries, options: dict[str, int]) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(NoAnswer, match="ReadTimeout"),
    ):
        ask_with(local(silent.getsockname()[1]), "predict", [TEXT], how={"retries": retries}, **options)


def test_an_answer_of_a_proxy_is_shown(ask_with: Ask) -> None:
    refusal = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 14\r\n\r\n<html>no</html"
    with answering(refusal) as (port, heard), pytest.raises(Refused, match="502 Bad Gateway: <html>no</html"):
        ask_with(local(port), "predict", [TEXT])
    assert len(heard) == 1


def response(status: int, retry_after: str | None) -> httpx.Response:
    headers = {} if retry_after is None else {"retry-after": retry_after}
    return httpx.Response(status, headers=headers, request=httpx.Request("POST", "http://x/predict"))


@given(
    st.lists(st.none() | st.integers(0, 40), min_size=1, max_size=12),
    st.integers(1, 6),
    st.floats(0.1, 60),
    st.none() | st.integers(1, 60_000),
)
def test_pauses_keep_to_the_bounds(
    named: list[int | None], attempts: int, total_seconds: float, timeout_ms: int | None
) -> None:
    fields = {} if timeout_ms is None else {"timeout_ms": timeout_ms}
    began = time.monotonic()
    call = Call(Retries(attempts, total_seconds), fields)
    pauses = 0
    for seconds in named:
        try:
            pause = call.after(response(429, None if seconds is None else str(seconds)))
        except Refused:
            break
        assert isinstance(pause, float)
        assert pause >= (seconds or 0)
        assert pause <= 2 if seconds is None else pause <= 1.25 * seconds + 0.05
        ends = min(total_seconds, (timeout_ms or 60_000) / 1000)
        assert time.monotonic() + pause < began + ends + 0.1
        pauses += 1
    assert pauses < attempts


def test_a_time_to_come_back_may_be_a_date() -> None:
    with pytest.raises(Refused) as caught:
        Call(Retries(attempts=1)).after(response(503, formatdate(time.time() + 50, usegmt=True)))
    assert caught.value.retry_after_seconds is not None
    assert 40 < caught.value.retry_after_seconds <= 50
    with pytest.raises(Refused) as caught:
        Call(Retries(attempts=1)).after(response(503, "soon"))
    assert caught.value.retry_after_seconds is None


def test_later_attempts_have_what_is_left_of_the_time() -> None:
    call = Call(Retries(), {"timeout_ms": 60_000})
    assert json.loads(call.body() or b"")["timeout_ms"] == 60_000
    ends = time.monotonic() + 0.02
    while time.monotonic() < ends:
        continue
    call.after(response(503, None))
    assert json.loads(call.body() or b"")["timeout_ms"] <= 59_980
    assert 60 < Call(Retries(total_seconds=100), {"timeout_ms": 60_000}).seconds() <= 61
    assert Call(Retries(total_seconds=1), {"timeout_ms": 60_000}).seconds() <= 1


EMPTY = b'{"model":"m","version":"1","predictions":[]}'


class answering:
    """A server that gives these answers, one on each connection, and keeps what it has heard."""

    def __init__(self, *answers: bytes) -> None:
        self._answers = answers
        self._heard: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve)

    def _serve(self) -> None:
        for answer in self._answers:
            connection, _ = self._listener.accept()
            with connection:
                data = b""
                while not data.endswith(b"}"):
                    data += connection.recv(65536)
                self._heard.append(data)
                connection.sendall(answer)

    def __enter__(self) -> tuple[int, list[bytes]]:
        self._thread.start()
        return self._listener.getsockname()[1], self._heard

    def __exit__(self, *_: object) -> None:
        self._thread.join()
        self._listener.close()


def fill(service: Service, port: int, pool: ThreadPoolExecutor, wants_to_run: threading.Event) -> list[Future[Any]]:
    """Have one query computed and one wait, so that the queue has no room."""
    first = pool.submit(ask, port)
    wants_to_run.wait()
    second = pool.submit(ask, port)
    while service.model.has_room():
        ask(port, "/livez")
    return [first, second]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
