from __future__ import annotations

import asyncio
import json
import logging
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from service.access.keys import line_of, new_secret
from service.errors import QueueFull
from service.http.exchange import Exchange
from service.telemetry import access_log
from service.telemetry.access_log import LINES_PER_SECOND, AccessLog
from tests.bundles import Spec, write_bundle
from tests.service.serving import BODY, HEAD, TEXT, ask, in_this_process, running, serving

LOGGER = access_log.logger.name
GOOD = {"queries": [TEXT, "images"], "k": 2}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundles") / "mach"
    write_bundle(path, Spec(name="mach"))
    return path


@pytest.fixture
def lines() -> Iterator[list[logging.LogRecord]]:
    """What is logged, as it comes."""
    found: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = found.append  # type: ignore[method-assign]
    logger = logging.getLogger("service")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield found
    logger.removeHandler(handler)
    logger.setLevel(level)


def fields(lines: list[logging.LogRecord]) -> list[dict[str, Any]]:
    """What the lines of the access log say beside their messages, without times."""
    ours = [line for line in lines if line.name == LOGGER]
    found = [dict(line.__dict__["fields"]) for line in ours]
    for one in found:
        assert one.pop("milliseconds") > 0
    return found


def messages(lines: list[logging.LogRecord]) -> list[str]:
    return [line.getMessage() for line in lines if line.name == LOGGER]


def test_by_default_refused_and_failed_requests_have_a_line(bundle: Path, lines: list[logging.LogRecord]) -> None:
    with serving(bundle) as service:
        lines.clear()
        service.predict(GOOD)
        service.predict({"queries": ["a secret"], "model": "nobody"}, **{"X-Request-Id": "abc"})
        service.client.get("/nowhere%0Aforged")
    assert messages(lines) == ["POST /predict 404 Unknown model", "GET unknown 404"]
    assert fields(lines)[0] == {"endpoint": "/predict", "status": 404, "problem": "Unknown model"}
    assert lines[-2].__dict__["request_id"] == "abc"
    assert "secret" not in str(lines[-2].__dict__)


def test_all_requests_have_a_line_if_wanted(bundle: Path, lines: list[logging.LogRecord]) -> None:
    with serving(bundle, access_log="all") as service:
        lines.clear()
        service.predict(GOOD)
        identity = service.model.identity
    assert messages(lines) == ["POST /predict 200"]
    assert fields(lines) == [{"endpoint": "/predict", "status": 200, "model": identity, "rows": 2, "k": 2}]
    assert TEXT not in str(lines[-1].__dict__)


def test_none_has_a_line_if_wanted(bundle: Path, lines: list[logging.LogRecord]) -> None:
    with serving(bundle, access_log="off") as service:
        lines.clear()
        service.predict({})
    assert messages(lines) == []


def test_queries_are_told_if_wanted(bundle: Path, lines: list[logging.LogRecord]) -> None:
    with serving(bundle, access_log="all", log_queries=True) as service:
        lines.clear()
        service.predict(GOOD)
    assert fields(lines)[0]["queries"] == GOOD["queries"]


def test_sparse_queries_are_told_too(tmp_path: Path, lines: list[logging.LogRecord]) -> None:
    write_bundle(tmp_path / "b", Spec(name="mach", input="features"))
    vector = {"indices": [3, 1], "values": [0.5, 2.0]}
    with serving(tmp_path / "b", access_log="all", log_queries=True) as service:
        lines.clear()
        assert service.predict({"features": [vector]}).status_code == 200
    assert fields(lines)[0]["queries"] == [vector]


def test_the_key_is_named(bundle: Path, tmp_path: Path, lines: list[logging.LogRecord]) -> None:
    secret, file = new_secret(), tmp_path / "keys"
    file.write_text(line_of("shop", secret, ["read-only"]))
    with serving(bundle, api_keys_file=file) as service:
        lines.clear()
        service.predict(GOOD, **{"X-API-Key": secret})
    assert fields(lines)[-1] == {"endpoint": "/predict", "status": 403, "problem": "Forbidden", "key": "shop"}
    assert secret not in str([line.__dict__ for line in lines])


def test_the_cause_of_a_failure_is_found_by_the_request_id(
    bundle: Path, lines: list[logging.LogRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("broken")

    with serving(bundle) as service:
        lines.clear()
        monkeypatch.setattr(service.engine, "run", fail)
        assert service.predict(GOOD, **{"X-Request-Id": "abc"}).status_code == 500
    told = next(line for line in lines if line.name == LOGGER)
    assert (told.__dict__["request_id"], told.levelname) == ("abc", "ERROR")
    incident = re.search(r"[0-9a-f]{16}$", told.__dict__["fields"]["detail"])
    assert incident is not None
    causes = [line for line in lines if getattr(line, "fields", {}).get("incident") == incident[0]]
    assert [str(line.exc_info[1]) for line in causes if line.exc_info] == ["broken"]


def test_requests_turned_away_unread_have_one_line_together(
    bundle: Path, lines: list[logging.LogRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access_log, "SUMMARY_SECONDS", 0.0)
    with in_this_process(bundle) as (service, port), socket.create_connection(("127.0.0.1", port)) as connection:
        lines.clear()
        monkeypatch.setattr(service.model, "has_room", lambda: False)
        connection.sendall(HEAD + BODY)
        assert b" 429 " in connection.recv(1 << 16)
        while not messages(lines):
            ask(port, "/livez")
    assert messages(lines) == ["1 refused requests without a line of their own"]


def test_errors_are_bounded_and_the_others_counted(
    lines: list[logging.LogRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access_log, "SUMMARY_SECONDS", 0.0)
    monkeypatch.setattr(access_log, "time", SimpleNamespace(monotonic=lambda: 7.5))
    log = AccessLog("errors", with_queries=False)
    exchange = Exchange.of([], "POST")
    exchange.status, exchange.error = 429, QueueFull("full")

    async def tell() -> None:
        for _ in range(LINES_PER_SECOND + 5):
            log(exchange, "/predict", 0.001)
        while len(messages(lines)) <= LINES_PER_SECOND:
            await asyncio.sleep(0)

    asyncio.run(tell())
    assert messages(lines) == [
        *["POST /predict 429 Queue full"] * LINES_PER_SECOND,
        "5 refused requests without a line of their own",
    ]


def test_the_command_writes_one_json_object_a_line(bundle: Path) -> None:
    with running("--bundle", bundle, "--drain-seconds", "0", "--access-log", "all") as server:
        assert ask(server.port)[0] == 200
        line = server.wait_for("POST /predict 200")
        assert server.stop() == 0
    assert line["logger"] == LOGGER
    assert len(line["request_id"]) == 32
    assert line["milliseconds"] > 0
    assert any(entry["logger"].startswith("uvicorn") for entry in server.log)
    assert TEXT not in json.dumps(server.log)
