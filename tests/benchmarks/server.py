"""A server of its own process, for as long as a benchmark asks it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence

READY_SECONDS = 120.0

Labels = list[tuple[str, float]]


@contextlib.contextmanager
def running(command: Sequence[str]) -> Iterator[str]:
    """A server that answers, as its URL; ended afterwards with all its processes.

    Args:
        command: that takes ``--port``.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([*command, "--port", str(port)], start_new_session=True)
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_until_ready(url, process)
        yield url
    finally:
        with contextlib.suppress(ProcessLookupError):  # it may have ended by itself
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def ask(url: str, text: str, k: int) -> Labels:
    """Ids and scores of the best labels for one text."""
    body = json.dumps({"queries": [text], "k": k}).encode()
    request = urllib.request.Request(f"{url}/predict", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=READY_SECONDS) as answer:
        labels = json.load(answer)["predictions"][0]["labels"]
    return [(label["id"], label["score"]) for label in labels]


def _wait_until_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    give_up = time.monotonic() + READY_SECONDS
    while time.monotonic() < give_up and process.poll() is None:
        with contextlib.suppress(OSError, urllib.error.URLError):
            ask(url, "ready?", 1)
            return
        time.sleep(0.2)
    raise SystemExit(f"{process.args} ended, or did not answer within {READY_SECONDS:.0f} s")
