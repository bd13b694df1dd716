"""``make demo``: start the server as a user would, ask every model one query over HTTP, print the answers, stop it.

It is a client: of the service it uses the command and the HTTP interface, and knows no other part of it.
"""

from __future__ import annotations

import argparse
import json
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

READY_WITHIN_SECONDS = 120.0
ANSWERED_WITHIN_SECONDS = 30.0
STOPPED_WITHIN_SECONDS = 60.0
POLL_SECONDS = 0.1

# A proxy from the environment must not see requests to this machine.
_HTTP = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class DemoError(Exception):
    """The demonstration failed; the message says where, with the server's own words."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demonstration.

    Args:
        arguments: the command line; the process's own when None.

    Returns:
        Exit code: 0 when every model answered and the server stopped cleanly, 1 otherwise.
    """
    parser = argparse.ArgumentParser(prog="python -m service.demo", description="Ask every model one query.")
    parser.add_argument("bundles", nargs="+", type=Path, metavar="BUNDLE", help="folder of a text bundle")
    parser.add_argument("--query", required=True, help="text to find labels for")
    parser.add_argument("--k", type=int, default=5, help="labels to print for each model (default: 5)")
    options = parser.parse_args(arguments)
    try:
        answers = demonstrate(options.bundles, options.query, options.k)
    except DemoError as error:
        sys.stderr.write(f"demo: {error}\n")
        return 1
    sys.stdout.write(render(options.query, answers))
    return 0


def demonstrate(bundles: Sequence[Path], query: str, k: int) -> list[dict[str, Any]]:
    """Serve the bundles, ask each model once, stop the server.

    Returns:
        One object a model: its description from ``/v1/models``, its ``labels`` and the ``seconds`` the answer took.

    Raises:
        DemoError: the server did not become ready, refused a query or did not stop cleanly.
    """
    with tempfile.TemporaryFile("w+") as log, _serving(bundles, log) as url:
        return [_ask(url, model, query, k) for model in json.loads(_fetch(f"{url}/v1/models"))["models"]]


def render(query: str, answers: Sequence[dict[str, Any]]) -> str:
    """The answers as a table for the terminal: a heading a model, then its labels with their scores."""
    lines = [f'Query: "{query}"']
    for answer in answers:
        heading = f"{answer['name']} ({answer['method']}, {answer['label_count']:,} labels"
        lines += ["", f"{heading}, {1000 * answer['seconds']:.1f} ms)"]
        lines += [f"  {label['score']:>9.4f}  {label.get('text') or label['id']}" for label in answer["labels"]]
    return "\n".join(lines) + "\n"


@contextmanager
def _serving(bundles: Sequence[Path], log: IO[str]) -> Iterator[str]:
    """The address of a server that is ready; it is stopped with SIGTERM afterwards, whatever happens."""
    port = _free_port()
    command = [sys.executable, "-m", "service.cli", "run", "--host", "127.0.0.1", "--port", str(port)]
    # No load balancer has to notice that this server leaves.
    command += ["--drain-seconds", "0"]
    for bundle in bundles:
        command += ["--bundle", str(bundle)]
    url = f"http://127.0.0.1:{port}"
    with subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT) as server:
        try:
            _wait_until_ready(server, url, log)
            yield url
        except BaseException:
            server.kill()
            raise
        _stop(server, log)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_ready(server: subprocess.Popen[bytes], url: str, log: IO[str]) -> None:
    deadline = time.monotonic() + READY_WITHIN_SECONDS
    reason = "no connection"
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise DemoError(f"the server ended with code {server.returncode} before it was ready:\n{_tail(log)}")
        try:
            _fetch(f"{url}/readyz")
        except DemoError as error:
            reason = str(error)
            time.sleep(POLL_SECONDS)
        else:
            return
    raise DemoError(f"the server was not ready after {READY_WITHIN_SECONDS:g} s ({reason}):\n{_tail(log)}")


def _stop(server: subprocess.Popen[bytes], log: IO[str]) -> None:
    server.send_signal(signal.SIGTERM)
    try:
        code = server.wait(STOPPED_WITHIN_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()
        raise DemoError(f"the server still ran {STOPPED_WITHIN_SECONDS:g} s after SIGTERM:\n{_tail(log)}") from None
    if code != 0:
        raise DemoError(f"the server ended with code {code} after SIGTERM, expected 0:\n{_tail(log)}")


def _ask(url: str, model: dict[str, Any], query: str, k: int) -> dict[str, Any]:
    body = json.dumps({"model": model["name"], "queries": [query], "k": k}).encode()
    request = urllib.request.Request(f"{url}/predict", data=body, headers={"Content-Type": "application/json"})
    started = time.perf_counter()
    answer = json.loads(_fetch(request))
    seconds = time.perf_counter() - started
    return {**model, "labels": answer["predictions"][0]["labels"], "seconds": seconds}


def _fetch(request: str | urllib.request.Request) -> bytes:
    """The body of an answer; a problem document becomes a DemoError with its words."""
    try:
        with _HTTP.open(request, timeout=ANSWERED_WITHIN_SECONDS) as response:
            body: bytes = response.read()
            return body
    except urllib.error.HTTPError as error:
        raise DemoError(f"{error.url} answered {error.code}: {error.read().decode(errors='replace')}") from None
    except OSError as error:
        raise DemoError(f"no answer from the server: {error}") from None


def _tail(log: IO[str], lines: int = 20) -> str:
    log.seek(0)
    return "".join(log.readlines()[-lines:])


if __name__ == "__main__":
    sys.exit(main())
