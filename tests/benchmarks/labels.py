"""Labels that change while they are served: how soon a new one is found, and what changed labels cost a query.

    python -m tests.benchmarks.labels BUNDLE [--adds 100]

A server starts with the bundle, of UniDEC with its dual encoder. Labels are added one at a time, each by a text of its
own, and that text is asked until its label is in the answer: printed are the seconds to the acknowledgement and to the
answer. Then the server is killed and started again, and asked for all of them. Last, a lone query
is timed with more and more labels added, and then with its best ones disabled.
"""

from __future__ import annotations

import argparse
import http.client
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from service.access.keys import line_of, new_secret
from service.bundle.reader import read_manifest
from tests.benchmarks.server import running

WORDS = ("alpine", "bridge", "copper", "desert", "engine", "forest", "garden", "harbour", "island", "jungle")
QUERY = "a query of several words"
QUERIES, QUIET = 300, 50
ADDED, DISABLED = (100, 1_000, 10_000), (1, 10, 100)
ADDED_AT_ONCE = 500


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--adds", type=int, default=100)
    chosen = parser.parse_args()
    secret, name = new_secret(), read_manifest(chosen.bundle).name
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "keys").write_text(line_of("root", secret, ()))
        command = [sys.executable, "-m", "service.cli", "run", "--bundle", str(chosen.bundle)]
        command += ["--admin-keys-file", f"{place}/keys", "--labels-dir", place]
        texts = [f"{WORDS[number % 10]} {WORDS[number // 10 % 10]} number {number}" for number in range(chosen.adds)]
        with running(command) as url:
            measure_additions(Administrator(url, secret, name), texts)
        # Leaving it ends the server by SIGKILL.
        with running(command) as url:
            administrator = Administrator(url, secret, name)
            there = sum(f"new-{number}" in administrator.ask(text) for number, text in enumerate(texts))
            print(f"after kill -9 and a new start: {there} of {len(texts)} are found")
            measure_queries(administrator, len(texts))


class Administrator:
    """One connection with an admin key."""

    def __init__(self, url: str, secret: str, model: str) -> None:
        parts = urlsplit(url)
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 0)
        self._headers = {"Content-Type": "application/json", "X-API-Key": secret}
        self._model = model

    def change(self, **body: Any) -> None:
        """Change labels."""
        self._post(f"/admin/models/{self._model}/labels", body)

    def ask(self, text: str, k: int = 5) -> list[str]:
        """The labels of a text."""
        answer = self._post("/predict", {"queries": [text], "k": k})
        return [label["id"] for label in answer["predictions"][0]["labels"]]

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        self._connection.request("POST", path, json.dumps(body), self._headers)
        response = self._connection.getresponse()
        content = json.loads(response.read())
        assert response.status == 200, content
        return content


def measure_additions(administrator: Administrator, texts: list[str]) -> None:
    """Add one label at a time, and ask for it."""
    acknowledged, found = [], []
    for number, text in enumerate(texts):
        since = time.perf_counter()
        administrator.change(add=[{"id": f"new-{number}", "text": text}])
        acknowledged.append(time.perf_counter() - since)
        while f"new-{number}" not in administrator.ask(text):
            continue
        found.append(time.perf_counter() - since)
    for what, seconds in (("acknowledged", acknowledged), ("found", found)):
        milliseconds = [1000 * each for each in seconds]
        print(f"{what:>12s}: median {statistics.median(milliseconds):.1f} ms, longest {max(milliseconds):.1f} ms")


def measure_queries(administrator: Administrator, added: int) -> None:
    """Time lone queries with more and more labels changed."""
    print("  added  disabled  p50 ms")
    for count in ADDED:
        new = [{"id": f"more-{number}", "text": WORDS[number % 10]} for number in range(count - added)]
        for start in range(0, len(new), ADDED_AT_ONCE):
            administrator.change(add=new[start : start + ADDED_AT_ONCE])
        added = max(added, count)
        print(f"{added:7d} {0:9d} {p50(administrator):7.3f}")
    best = administrator.ask(QUERY, k=max(DISABLED))
    for count in DISABLED:
        administrator.change(disable=best[:count])
        print(f"{added:7d} {count:9d} {p50(administrator):7.3f}")


def p50(administrator: Administrator) -> float:
    """Median of lone queries, in milliseconds."""
    seconds = []
    for _ in range(QUIET + QUERIES):
        since = time.perf_counter()
        administrator.ask(QUERY)
        seconds.append(time.perf_counter() - since)
    return 1000 * statistics.median(seconds[QUIET:])


if __name__ == "__main__":
    main()
