"""Asking a process of its own, which may crash: libraries that do not fit end whoever imports them without a word."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

# A GPU that hangs must not hold up what else there is to say.
MOST_SECONDS = 120

# What a probe prints itself goes where errors go, so that answers stand alone.
_PROGRAM = """
import sys
sys.path[:] = {path!r}
from service.doctor.child import tell
from service.doctor import probes
tell(probes.{probe}(*{arguments!r}))
"""


class Heard(NamedTuple):
    """What a probe told.

    Attributes:
        answers: in their order; all that it has, if it ended well.
        end: how it ended where not well.
    """

    answers: list[Any]
    end: str | None


def ask(probe: Callable[..., Iterable[Any]], *arguments: object) -> Heard:
    """Run one of `probes` in a process of its own.

    Args:
        probe: gives answers that JSON can hold.
        arguments: for it, which are written as Python writes them.
    """
    program = _PROGRAM.format(path=sys.path, probe=probe.__name__, arguments=arguments)
    command = [sys.executable, "-c", program]
    try:
        done = subprocess.run(command, capture_output=True, timeout=MOST_SECONDS, check=False)
    except subprocess.TimeoutExpired as late:
        return Heard(_answers(late.stdout or b""), f"did not end in {MOST_SECONDS} s")
    return Heard(_answers(done.stdout), _end(done.returncode, done.stderr) if done.returncode else None)


def tell(answers: Iterable[Any]) -> None:
    """Write each answer as soon as it is there; for the process that was asked."""
    with os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8") as stream:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        for answer in answers:
            stream.write(json.dumps(answer) + "\n")
            stream.flush()


def _answers(written: bytes) -> list[Any]:
    return [json.loads(line) for line in written.splitlines()]


def _end(code: int, errors: bytes) -> str:
    how = f"by {signal.Signals(-code).name}" if code < 0 else f"with code {code}"
    last = errors.decode(errors="replace").strip().rpartition("\n")[2]
    return f"ended {how}" + (f": {last}" if last else "")
