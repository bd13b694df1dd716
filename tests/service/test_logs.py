from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator

import pytest

from service.logs import configure_logging
from service.settings import LogFormat


@pytest.fixture(autouse=True)
def _root_logger() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def log_two_lines() -> None:
    logger = logging.getLogger("service.test")
    logger.debug("not seen")
    logger.info("loaded %s", "tïny")
    try:
        raise ValueError("broken")
    except ValueError:
        logger.exception("failed", extra={"request_id": "abc"})


def test_a_machine_reads_one_json_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("json")
    log_two_lines()
    info, error = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", info.pop("time"))
    assert info == {"level": "info", "logger": "service.test", "message": "loaded tïny"}
    assert (error["level"], error["request_id"]) == ("error", "abc")
    assert "ValueError: broken" in error["stack"]


def test_a_person_reads_lines(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("console")
    log_two_lines()
    printed = capsys.readouterr().err
    assert re.search(r"^[\d-]+ [\d:,]+ INFO     service.test: loaded tïny$", printed, re.MULTILINE)
    assert "ValueError: broken" in printed
    assert "not seen" not in printed


FORGED = "a\nERROR forged\r\x1b[2J\x00\x85\u2028\u202eb"


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_one_event_is_one_line_whatever_is_in_it(log_format: LogFormat, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(log_format)
    fields = {"key": FORGED, "rows": 3, "queries": [FORGED, "x y"]}
    logging.getLogger("service.test").info("found %s", FORGED, extra={"request_id": "abc", "fields": fields})
    printed = capsys.readouterr().err
    assert len(printed.splitlines()) == 1
    assert printed.removesuffix("\n").isprintable()
    if log_format == "json":
        line = json.loads(printed)
        assert line.pop("message") == "found " + FORGED
        assert {name: line[name] for name in ("request_id", *fields)} == {"request_id": "abc", **fields}
    else:
        assert " request_id=abc " in printed
        assert " rows=3 " in printed


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_no_line_of_a_stack_looks_like_an_event(log_format: LogFormat, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(log_format)
    try:
        raise ValueError(FORGED)
    except ValueError:
        logging.getLogger("service.test").exception("failed")
    first, *others = capsys.readouterr().err.split("\n")
    assert first.isprintable()
    assert all(line.startswith("  ") and line.isprintable() for line in others if line)
    assert bool(others[:-1]) == (log_format == "console")
