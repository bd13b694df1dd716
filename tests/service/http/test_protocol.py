from __future__ import annotations

import asyncio
import json
import logging
import re
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

import pytest
import uvicorn
from uvicorn.server import ServerState

from service.http.protocol import MAX_HEAD_BYTES, Protocol
from service.schemas import PredictResponse, Problem
from tests.bundles import Spec, write_bundle
from tests.service.serving import BODY, HEAD, TEXT, Service, blocked, in_this_process, wait_for_metric

MAX_BODY_BYTES = 300_000


@dataclass
class Received:
    """One answer from a socket."""

    status: int
    headers: dict[str, str]
    body: bytes


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, int]]:
    path = tmp_path_factory.mktemp("bundles") / "mach"
    write_bundle(path, Spec(name="mach"))
    with in_this_process(path, max_body_bytes=MAX_BODY_BYTES) as (service, port):
        yield service, port


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port))


def read(connection: socket.socket, count: int = 1) -> list[Received]:
    """The next answers."""
    answers = []
    with connection.makefile("rb") as stream:
        for _ in range(count):
            status = int(stream.readline().split()[1])
            headers = {}
            while (line := stream.readline().decode().rstrip()) != "":
                name, _, value = line.partition(": ")
                assert name not in headers
                headers[name] = value
            answers.append(Received(status, headers, stream.read(int(headers["content-length"]))))
    return answers


def request(body: bytes, *headers: str, version: str = "1.1") -> bytes:
    length = [] if any("Content-Length" in header for header in headers) else [f"Content-Length: {len(body)}"]
    lines = [f"POST /predict HTTP/{version}", "Host: x", *length, *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def exchange(port: int, sent: bytes) -> Received:
    with connect(port) as connection:
        connection.sendall(sent)
        return read(connection)[0]


JSON = "Content-Type: application/json"


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (BODY, [JSON], 200),
        (BODY, ["Content-Type: application/vnd.x+json; charset=utf-8", "X-Request-Id: abc"], 200),
        (json.dumps({"queries": [TEXT, "images"], "k": 2, "min_score": 0.0}).encode(), [JSON], 200),
        (json.dumps({"queries": ["x" * 40_000] * 6}).encode(), [JSON], 200),
        (b"{", [JSON], 400),
        (BODY, [], 415),
        (b'{"queries": ["a"], "model": "nobody"}', [JSON], 404),
        (b'{"queries": []}', [JSON], 422),
        (b"", [JSON, f"Content-Length: {MAX_BODY_BYTES + 1}"], 413),
    ],
    ids=lambda value: str(value)[:40],
)
def test_the_short_way_answers_as_the_application_does(
    server: tuple[Service, int], body: bytes, headers: list[str], status: int
) -> None:
    """HTTP/1.0 takes the way through the application."""
    _, port = server
    short = exchange(port, request(body, *headers))
    long = exchange(port, request(body, *headers, version="1.0"))
    assert short.status == long.status == status
    assert long.headers.pop("connection") == "close"
    assert short.headers.keys() == long.headers.keys()
    for name in short.headers.keys() - {"date", "x-request-id", "server-timing"}:
        assert short.headers[name] == long.headers[name]
    if status == 200:
        PredictResponse.model_validate_json(short.body)
        assert short.body == long.body
    else:
        one, other = (Problem.model_validate_json(answer.body) for answer in (short, long))
        assert one.request_id == short.headers["x-request-id"]
        assert one.model_copy(update={"request_id": other.request_id}) == other
    if "X-Request-Id: abc" in headers:
        assert short.headers["x-request-id"] == "abc"


def test_both_ways_count_alike(server: tuple[Service, int]) -> None:
    service, port = server
    counted = service.metrics.registry.get_sample_value
    labels = {"endpoint": "/predict", "model": "mach", "code": "200"}
    before = counted("xmc_requests_total", labels) or 0.0
    exchange(port, request(BODY, JSON))
    exchange(port, request(BODY, JSON, version="1.0"))
    assert counted("xmc_requests_total", labels) == before + 2
    wait_for_metric(port, "xmc_inflight_requests 1.0")  # the request that looks


def test_a_connection_serves_one_request_after_the_other(server: tuple[Service, int]) -> None:
    with connect(server[1]) as connection:
        for sent, status in ((HEAD + BODY, 200), (request(b"{", JSON), 400), (HEAD + BODY, 200)):
            connection.sendall(sent)
            assert read(connection)[0].status == status


def test_pipelined_requests_are_answered_in_order(server: tuple[Service, int], monkeypatch: pytest.MonkeyPatch) -> None:
    service, port = server
    with connect(port) as connection:
        with blocked(service.engine, monkeypatch):
            one, other = (request(BODY, JSON, f"X-Request-Id: {name}") for name in ("one", "other"))
            connection.sendall(one + request(b"{", JSON) + other)
        answers = read(connection, 3)
    assert [answer.status for answer in answers] == [200, 400, 200]
    assert [answers[place].headers["x-request-id"] for place in (0, 2)] == ["one", "other"]


def test_a_body_may_come_in_pieces(server: tuple[Service, int]) -> None:
    with connect(server[1]) as connection:
        for piece in (HEAD, BODY[:5], BODY[5:]):
            connection.sendall(piece)
        assert read(connection)[0].status == 200


def chunked(*pieces: bytes) -> bytes:
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)


def test_a_chunked_body_is_read_and_bounded_too(server: tuple[Service, int]) -> None:
    _, port = server
    assert exchange(port, chunked(BODY[:5], BODY[5:], b"")).status == 200
    # Its end never comes: it is refused as soon as it is too large.
    assert exchange(port, chunked(b" " * MAX_BODY_BYTES, b" ")).status == 413


def test_a_client_may_ask_to_continue_first(server: tuple[Service, int]) -> None:
    with connect(server[1]) as connection:
        connection.sendall(request(b"", JSON, "Expect: 100-continue").replace(b": 0\r", b": %d\r" % len(BODY)))
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(BODY)
        assert read(connection)[0].status == 200


def test_a_client_may_ask_to_close(server: tuple[Service, int]) -> None:
    with connect(server[1]) as connection:
        connection.sendall(request(BODY, JSON, "Connection: close"))
        with connection.makefile("rb") as stream:
            answer = stream.read()  # to the end of the connection
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\nconnection: close\r\n" in answer


def test_other_methods_are_the_applications(server: tuple[Service, int]) -> None:
    answer = exchange(server[1], b"GET /predict HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (answer.status, answer.headers["allow"]) == (405, "POST")


def test_a_client_that_leaves_before_the_end_of_its_body_is_forgotten(server: tuple[Service, int]) -> None:
    service, port = server
    counted = service.metrics.registry.get_sample_value
    labels = {"endpoint": "/predict", "model": "", "code": "499"}
    assert counted("xmc_requests_total", labels) is None
    with connect(port) as connection:
        connection.sendall(HEAD + BODY[:5])
        wait_for_metric(port, "xmc_inflight_requests 2.0")
    wait_for_metric(port, "xmc_inflight_requests 1.0")
    assert counted("xmc_requests_total", labels) == 1


def test_the_refused_hear_it_before_they_have_sent_their_body(
    server: tuple[Service, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    service, port = server
    monkeypatch.setattr(service.model, "has_room", lambda: False)
    with connect(port) as connection:
        connection.sendall(HEAD)
        answer = read(connection)[0]
        assert answer.status == 429
        assert re.fullmatch("[0-9]+", answer.headers["retry-after"])
        monkeypatch.undo()
        connection.sendall(BODY + HEAD + BODY)  # the rest of the refused one is not taken for a request
        assert read(connection)[0].status == 200


@pytest.mark.parametrize("headers", [[], ["X-Request-Id: abc"], ["X-Request-Id: not/sane"]])
def test_who_is_turned_away_unread_hears_what_the_application_says(
    server: tuple[Service, int], monkeypatch: pytest.MonkeyPatch, headers: list[str]
) -> None:
    """HTTP/1.0 takes the way through the application."""
    service, port = server
    counted = service.metrics.registry.get_sample_value
    labels = {"endpoint": "/predict", "model": "", "code": "429"}
    before = [
        counted("xmc_requests_total", labels) or 0.0,
        counted("xmc_rejected_total", {"reason": "queue_full"}) or 0,
    ]
    monkeypatch.setattr(service.model, "has_room", lambda: False)
    unread = exchange(port, request(BODY, JSON, *headers))
    long = exchange(port, request(BODY, JSON, *headers, version="1.0"))
    assert unread.status == long.status == 429
    assert long.headers.pop("connection") == "close"
    assert unread.headers.keys() == long.headers.keys()
    one, other = (Problem.model_validate_json(answer.body) for answer in (unread, long))
    assert one.request_id == unread.headers["x-request-id"]
    assert (one.request_id == "abc") == (headers == ["X-Request-Id: abc"])
    assert one.model_copy(update={"request_id": other.request_id}) == other
    after = [counted("xmc_requests_total", labels), counted("xmc_rejected_total", {"reason": "queue_full"})]
    assert after == [count + 2 for count in before]
    wait_for_metric(port, "xmc_inflight_requests 1.0")  # the request that looks


def test_a_connection_outlives_a_refusal(server: tuple[Service, int], monkeypatch: pytest.MonkeyPatch) -> None:
    service, port = server
    with connect(port) as connection:
        for has_room, status in ((True, 200), (False, 429), (False, 429), (True, 200)):
            monkeypatch.setattr(service.model, "has_room", lambda has_room=has_room: has_room)
            connection.sendall(HEAD + BODY)
            assert read(connection)[0].status == status


def test_the_keep_alive_timer_spares_connections_that_were_turned_away() -> None:
    """Refusals do not set it anew; so it must ask whether there was one."""

    async def scenario() -> tuple[bool, bool]:
        transport = mock.Mock(spec=asyncio.Transport, **{"is_closing.return_value": False})
        config = uvicorn.Config(mock.Mock(), http=Protocol, lifespan="off", log_config=None, proxy_headers=False)
        config.load()
        protocol = Protocol(config, ServerState(), {})
        protocol.transport = transport
        protocol._was_turned_away = True
        protocol.timeout_keep_alive_handler()
        spared = not transport.close.called
        protocol.timeout_keep_alive_handler()
        return spared, transport.close.called

    assert asyncio.run(scenario()) == (True, True)


@pytest.mark.parametrize("function", ["service.http.predict.parse_predict", "service.http.protocol.answer"])
def test_an_unexpected_error_is_answered_with_500_and_logged(
    server: tuple[Service, int], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, function: str
) -> None:
    def fail(*_: Any) -> None:
        raise ZeroDivisionError("a secret")

    caplog.set_level(logging.ERROR)
    monkeypatch.setattr(function, fail)
    with connect(server[1]) as connection:
        connection.sendall(HEAD + BODY)
        answer = read(connection)[0]
        monkeypatch.undo()
        connection.sendall(HEAD + BODY)
        assert read(connection)[0].status == 200
    assert answer.status == 500
    assert b"secret" not in answer.body
    (record,) = [record for record in caplog.records if record.name == "service.http.middleware"]
    assert "a secret" in str(record.exc_info[1])  # type: ignore[index]
    assert record.__dict__["request_id"] == answer.headers["x-request-id"]


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, int]]:
    path = tmp_path_factory.mktemp("bundles") / "mach"
    write_bundle(path, Spec(name="mach"))
    with in_this_process(path, max_body_bytes=MAX_BODY_BYTES, request_seconds=0.25) as (service, port):
        yield service, port


LONG_HEAD = HEAD.replace(b"1.1", b"1.0")


@pytest.mark.parametrize("before", [b"", HEAD + BODY], ids=["first", "second"])
@pytest.mark.parametrize(
    ("part", "endpoint", "code"),
    [
        (b"P", "unknown", "408"),
        (HEAD[:-2], "unknown", "408"),
        (HEAD, "/predict", "408"),
        (HEAD + BODY[:-1], "/predict", "408"),
    ],
    ids=["a letter", "half a head", "a head", "half a body"],
)
def test_a_request_that_does_not_end_is_refused_in_time(
    impatient: tuple[Service, int], before: bytes, part: bytes, endpoint: str, code: str
) -> None:
    service, port = impatient
    counted = service.metrics.registry.get_sample_value
    labels = {"endpoint": endpoint, "model": "", "code": code}
    seen = counted("xmc_requests_total", labels) or 0
    with connect(port) as connection:
        if before:
            connection.sendall(before)
            assert read(connection)[0].status == 200
        connection.sendall(part)
        answer = read(connection)[0]
        assert connection.recv(1) == b""
    assert (answer.status, answer.headers["connection"]) == (408, "close")
    assert "the whole request within 0.25 seconds" in Problem.model_validate_json(answer.body).detail
    assert counted("xmc_requests_total", labels) == seen + 1
    wait_for_metric(port, "xmc_inflight_requests 1.0")  # the request that looks


def test_time_begins_anew_with_each_request(impatient: tuple[Service, int]) -> None:
    """Also where the timer of one that came in pieces, and ended, still runs."""
    with connect(impatient[1]) as connection:
        for _ in range(2):
            connection.sendall(HEAD)
            wait_for_metric(impatient[1], "xmc_inflight_requests 2.0")  # this one, and the request that looks
            connection.sendall(BODY)
            assert read(connection)[0].status == 200
        since = time.monotonic()
        connection.sendall(HEAD)
        assert read(connection)[0].status == 408
        assert time.monotonic() - since >= 0.25


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_whoever_was_refused_must_end_in_time_too(impatient: tuple[Service, int], version: str) -> None:
    with connect(impatient[1]) as connection:
        connection.sendall(request(BODY, JSON, f"Content-Length: {MAX_BODY_BYTES + 1}", version=version))
        assert read(connection)[0].status == 413
        assert connection.recv(1) == b""


def test_the_application_loses_a_client_that_does_not_end(impatient: tuple[Service, int]) -> None:
    with connect(impatient[1]) as connection:
        connection.sendall(LONG_HEAD)
        assert connection.recv(1) == b""
    wait_for_metric(impatient[1], 'xmc_requests_total{code="499",endpoint="/predict",model=""} 1.0')


def test_a_slow_client_that_ends_is_answered(impatient: tuple[Service, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when its answer takes longer than it had for its request, and the next request has begun."""
    service, port = impatient
    with connect(port) as connection:
        for piece in (HEAD, BODY[:5], BODY[5:] + HEAD[:20]):
            connection.sendall(piece)
        assert read(connection)[0].status == 200
        connection.sendall(HEAD[20:] + BODY)
        assert read(connection)[0].status == 200
        with blocked(service.engine, monkeypatch) as wants_to_run:
            connection.sendall(HEAD + BODY + HEAD[:20])
            wants_to_run.wait()
            with connect(port) as other:  # whose time is over later
                other.sendall(b"P")
                assert read(other)[0].status == 408
        assert read(connection)[0].status == 200
        connection.sendall(HEAD[20:] + BODY)
        assert read(connection)[0].status == 200


def test_a_head_has_a_size(server: tuple[Service, int]) -> None:
    with connect(server[1]) as connection:
        connection.sendall(HEAD[:-2] + b"X: ")
        connection.sendall(b"x" * (MAX_HEAD_BYTES - len(HEAD) + 1))
        connection.sendall(b"x")
        answer = read(connection)[0]
    assert (answer.status, answer.headers["connection"]) == (431, "close")
    assert b"at most 65536 bytes" in answer.body


def test_what_wraps_a_chunked_body_has_a_size_too(server: tuple[Service, int]) -> None:
    """Extensions of chunks and trailers belong to no head and to no body."""
    with connect(server[1]) as connection:
        connection.sendall(chunked(BODY) + b"0\r\nTrailer: ")
        with pytest.raises(ConnectionError):
            flood(connection)


def flood(connection: socket.socket) -> None:
    for _ in range(64 * MAX_BODY_BYTES // 1000):  # 20 MB, which no buffer holds
        connection.sendall(b"x" * 1000)


def test_what_is_no_http_is_a_problem_too(server: tuple[Service, int]) -> None:
    _, port = server
    answer = exchange(port, b"nonsense\r\n\r\n")
    assert (answer.status, answer.headers["connection"]) == (400, "close")
    assert Problem.model_validate_json(answer.body).request_id == answer.headers["x-request-id"]
    answer = exchange(port, chunked(BODY).replace(b"\r\n\r\n", b"\r\n\r\nno size\r\n"))
    assert (answer.status, answer.headers["connection"]) == (400, "close")
    wait_for_metric(port, "xmc_inflight_requests 1.0")  # the request that looks
