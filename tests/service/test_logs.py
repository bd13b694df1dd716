from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from service.lines import MOST_LINES
from service.logs import configure_logging
from service.settings import LogFormat


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for module, hook in ((sys, "excepthook"), (sys, "unraisablehook"), (threading, "excepthook")):
        monkeypatch.setattr(module, hook, getattr(module, hook))
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def printed(capfd: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """Gives all that the log says; nothing can be logged any more."""

    def end() -> str:
        (handler,) = logging.getLogger().handlers
        handler.close()
        return capfd.readouterr().err

    return end


def log_two_lines() -> None:
    logger = logging.getLogger("service.test")
    logger.debug("not seen")
    logger.info("loaded %s", "tïny")
    try:
        raise ValueError("broken")
    except ValueError:
        logger.exception("failed", extra={"request_id": "abc"})


def test_a_machine_reads_one_json_object_a_line(printed: Callable[[], str]) -> None:
    configure_logging("json")
    log_two_lines()
    info, error = (json.loads(line) for line in printed().splitlines())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", info.pop("time"))
    assert info == {"level": "info", "logger": "service.test", "message": "loaded tïny"}
    assert (error["level"], error["request_id"]) == ("error", "abc")
    assert "ValueError: broken" in error["stack"]


def test_a_person_reads_lines(printed: Callable[[], str]) -> None:
    configure_logging("console")
    log_two_lines()
    found = printed()
    assert re.search(r"^[\d-]+ [\d:,]+ INFO     service.test: loaded tïny$", found, re.MULTILINE)
    assert "ValueError: broken" in found
    assert "not seen" not in found


FORGED = "a\nERROR forged\r\x1b[2J\x00\x85\u2028\u202eb"


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_one_event_is_one_line_whatever_is_in_it(log_format: LogFormat, printed: Callable[[], str]) -> None:
    configure_logging(log_format)
    fields = {"key": FORGED, "rows": 3, "queries": [FORGED, "x y"]}
    logging.getLogger("service.test").info("found %s", FORGED, extra={"request_id": "abc", "fields": fields})
    found = printed()
    assert len(found.splitlines()) == 1
    assert found.removesuffix("\n").isprintable()
    if log_format == "json":
        line = json.loads(found)
        assert line.pop("message") == "found " + FORGED
        assert {name: line[name] for name in ("request_id", *fields)} == {"request_id": "abc", **fields}
    else:
        assert " request_id=abc " in found
        assert " rows=3 " in found


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_no_line_of_a_stack_looks_like_an_event(log_format: LogFormat, printed: Callable[[], str]) -> None:
    configure_logging(log_format)
    try:
        raise ValueError(FORGED)
    except ValueError:
        logging.getLogger("service.test").exception("failed")
    first, *others = printed().split("\n")
    assert first.isprintable()
    assert all(line.startswith("  ") and line.isprintable() for line in others if line)
    assert bool(others[:-1]) == (log_format == "console")


def test_a_line_says_what_was_so_when_it_was_logged(printed: Callable[[], str]) -> None:
    configure_logging("json")
    labels = ["a"]
    logging.getLogger("service.test").info("found %s", labels, extra={"fields": {"labels": labels}})
    labels.append("b")
    line = json.loads(printed())
    assert (line["message"], line["labels"]) == ("found ['a']", ["a"])


def test_a_line_that_cannot_be_formatted_is_told_by_another(printed: Callable[[], str]) -> None:
    configure_logging("json")
    logging.getLogger("service.test").info("%d rows", "three")
    line = json.loads(printed())
    assert (line["logger"], line["level"]) == ("service.test", "error")
    assert re.fullmatch(rf"a line cannot be formatted: {re.escape(__file__)}:\d+", line["message"])
    assert "TypeError" in line["stack"]


def test_nobody_waits_for_another_threads_line(printed: Callable[[], str]) -> None:
    configure_logging("json")
    logger = logging.getLogger("service.test")
    begins, may_end = threading.Event(), threading.Event()

    class Slow:
        def __str__(self) -> str:
            begins.set()
            may_end.wait()
            return "slow"

    thread = threading.Thread(target=logger.info, args=("%s", Slow()))
    thread.start()
    begins.wait()
    logger.info("quick")
    may_end.set()
    thread.join()
    assert [json.loads(line)["message"] for line in printed().splitlines()] == ["quick", "slow"]


LINES = 2000
# What ends a process after it has logged, and the exit code.
ENDS = {
    "": 0,
    "sys.exit(3)": 3,
    "raise ValueError('the end')": 1,
    "logging.shutdown(); os._exit(4)": 4,
}


def start(statements: str) -> subprocess.Popen[bytes]:
    """A process that logs, joined to this one by pipes."""
    begin = "import logging, os, sys, threading, warnings; from service.logs import configure_logging"
    program = f"{begin}; configure_logging('json')\n{statements}"
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", program], stdin=pipe, stdout=pipe, stderr=pipe)


def read(process: subprocess.Popen[bytes]) -> list[dict[str, Any]]:
    """The rest of a process's log."""
    _, log = process.communicate()
    return [json.loads(line) for line in log.splitlines()]


def many_lines(end: str) -> str:
    return f"for number in range({LINES}): logging.info('%d %s', number, 'x' * 200)\n{end}"


@pytest.mark.parametrize(("end", "code"), ENDS.items())
def test_the_last_lines_are_written_however_the_process_ends(end: str, code: int) -> None:
    process = start(many_lines(end))
    found = read(process)
    assert process.wait() == code
    assert [line["message"].split()[0] for line in found[:LINES]] == [str(number) for number in range(LINES)]
    faults = found[LINES:]
    assert [line["level"] for line in faults] == ["critical"] * ("ValueError" in end)
    assert all("ValueError: the end" in line["stack"] for line in faults)


def test_no_process_waits_for_ever_for_somebody_to_read_its_last_lines() -> None:
    processes = [start(many_lines(end)) for end in ENDS]
    assert [process.wait() for process in processes] == list(ENDS.values())
    for process in processes:
        _, log = process.communicate()
        assert b'"message": "0 x' in log.splitlines()[0]


def test_what_python_would_write_itself_is_logged() -> None:
    process = start(
        """
class Careless:
    def __del__(self): raise KeyError("unraisable")
class Hasty(threading.Thread):
    def run(self): raise ValueError("in a thread")
class Quiet(threading.Thread):
    def run(self): raise SystemExit
warnings.warn("take care")
Careless()
for thread in (Hasty(name="hasty"), Quiet()):
    thread.start()
    thread.join()
"""
    )
    warning, unraisable, thread = read(process)
    assert process.wait() == 0
    assert (warning["level"], warning["logger"]) == ("warning", "py.warnings")
    assert "UserWarning: take care" in warning["message"]
    assert re.match("Exception ignored in: <function Careless.__del__", unraisable["message"])
    assert "KeyError: 'unraisable'" in unraisable["stack"]
    assert thread["message"] == "thread hasty ended by an error"
    assert "ValueError: in a thread" in thread["stack"]


def test_lost_lines_are_told_by_a_warning() -> None:
    count = 3 * MOST_LINES
    process = start(f"for _ in range({count}): logging.info('x')\nprint(flush=True)\nsys.stdin.read()")
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    kept = [json.loads(process.stderr.readline()) for _ in range(MOST_LINES)]
    while (line := json.loads(process.stderr.readline()))["message"] == "x":
        kept.append(line)
    lost = count - len(kept)
    assert (line["level"], line["logger"]) == ("warning", "service.logs")
    assert line["message"] == f"{lost} lines of this log are lost: they came faster than they were read"
    assert process.communicate() == (b"", b"")


def test_without_standard_error_the_log_is_written_to_no_other_file(tmp_path: Path) -> None:
    program = """
import logging
from service.logs import configure_logging
with open("other", "w") as other:
    configure_logging("json")
    logging.info("x")
    logging.shutdown()
    print(other.fileno())
"""
    command = ["sh", "-c", 'exec "$@" 2>&-', "sh", sys.executable, "-c", program]
    assert subprocess.run(command, cwd=tmp_path, stdout=subprocess.PIPE, check=True).stdout == b"2\n"
    assert (tmp_path / "other").read_text() == ""
