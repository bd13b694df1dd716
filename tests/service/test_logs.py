from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator

import pytest

from service.logs import configure_logging


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
