"""A real service that has seen everything: answers of all methods, refusals, failures, swaps, a shadow, filters."""

from __future__ import annotations

import http.client
import json
import random
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from service.access.keys import line_of, new_secret
from service.bundle import layout
from service.monitoring.rules import JOB
from tests.bundles import METHODS, WORDS, Spec, write_bundle
from tests.service.serving import HEAD, Process, ask, running

QUEUE_ROWS = 64
SHADOWED = "mach"
SWAPPED = "declare"
DAY_SECONDS = 24 * 60 * 60


@contextmanager
def served(folder: Path) -> Iterator[tuple[Process, Administrator]]:
    """A process that serves tiny bundles of all methods, and who may change that."""
    for method in METHODS:
        write_bundle(folder / "models" / method, Spec(name=method, method=method))
    for method in (SHADOWED, SWAPPED):
        write_bundle(folder / "models" / f"{method}-2", Spec(name=method, method=method, seed=1))
    shutil.copytree(folder / "models" / "mach", folder / "models" / "damaged")
    (folder / "models" / "damaged" / layout.ENCODER).write_bytes(b"")
    secret = new_secret()
    (folder / "keys").write_text(line_of("root", secret, ()))
    bundles = [argument for method in METHODS for argument in ("--bundle", folder / "models" / method)]
    options = ["--models-dir", folder / "models", "--labels-dir", folder, "--admin-keys-file", folder / "keys"]
    with running(*bundles, *options, "--queue-rows", str(QUEUE_ROWS), "--access-log", "off") as process:
        yield process, Administrator(process.port, secret)


class Administrator:
    """Changes what is served.

    Attributes:
        secret: a key for that.
    """

    def __init__(self, port: int, secret: str) -> None:
        self.secret = secret
        self._port = port
        self._headers = {"Content-Type": "application/json", "X-API-Key": secret}

    def load(self, bundle: str, **placing: float) -> int:
        """Load a bundle and wait for it; the status of the answer."""
        return self._post("/admin/models", {"bundle": bundle, "wait": True, **placing})

    def shadow(self) -> None:
        """Have a second version asked what the first is asked, and a label disabled."""
        assert self.load(f"{SHADOWED}-2", shadow=1.0) == 200
        assert self._post("/admin/models/unidec/labels", {"disable": ["label-03"]}) == 200

    def swap(self) -> None:
        """Replace one version by another, and fail to do so with a bundle that is damaged."""
        assert self.load("damaged") == 422
        assert self.load(f"{SWAPPED}-2") == 200

    def _post(self, path: str, body: dict[str, Any]) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", self._port)
        connection.request("POST", path, json.dumps(body), self._headers)
        status = connection.getresponse().status
        connection.close()
        return status


class Load:
    """Clients that ask until they are stopped, each in a thread.

    Args:
        port: of the service.
        clients: threads.

    Attributes:
        statuses: of the answers.
    """

    def __init__(self, port: int, clients: int) -> None:
        self._port = port
        self._is_over = threading.Event()
        self.statuses: Counter[int] = Counter()
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(clients)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def until_answered(self, answers: int, status: int) -> None:
        """Wait for so many answers with a status."""
        while self.statuses[status] < answers:
            time.sleep(0.01)

    def _ask(self, seed: int) -> None:
        chance = random.Random(seed)
        connection = http.client.HTTPConnection("127.0.0.1", self._port)
        for turn in count():
            if self._is_over.is_set():
                break
            if turn % 20 == 7:
                self._leave()
            connection.request("POST", "/predict", json.dumps(_body(chance)), {"Content-Type": "application/json"})
            response = connection.getresponse()
            response.read()
            self.statuses[response.status] += 1
        connection.close()

    def _leave(self) -> None:
        """Ask, and be gone before there is an answer."""
        text = json.dumps({"model": "mach", "queries": ["a"] * QUEUE_ROWS, "k": 40}).encode()
        length = f"Content-Length: {len(text)}".encode()
        head = HEAD.partition(b"Content-Length")[0] + length + b"\r\n\r\n"
        connection = http.client.HTTPConnection("127.0.0.1", self._port)
        connection.connect()
        connection.sock.sendall(head + text)
        connection.close()


def _body(chance: random.Random) -> dict[str, Any]:
    """Mostly a query or a few; sometimes very many at once, too late, filtered, longer than is read, or wrong."""
    rows = QUEUE_ROWS if chance.random() < 0.2 else chance.randint(1, 8)
    longest = 40 if chance.random() < 0.1 else 8
    body: dict[str, Any] = {"model": chance.choice(METHODS), "k": chance.choice((1, 5, 20))}
    body["queries"] = [" ".join(chance.choices(WORDS, k=chance.randint(1, longest))) for _ in range(rows)]
    match chance.randrange(12):
        case 0:
            body["filter"] = {"deny": [f"label-{chance.randrange(40):02d}"]}
        case 1:
            body["timeout_ms"] = 1
        case 2:
            body["k"] = 0
    return body


def yesterday(port: int, now: float) -> str:
    """What Prometheus would have recorded of the best scores a day and a week ago, had they been of all sizes alike.

    Rules look back that far; a test cannot wait for it.
    """
    lines = ask(port, "/metrics")[1].decode().splitlines()
    buckets = [line.partition("{")[2].partition("}")[0] for line in lines if line.startswith("xmc_top_score_bucket{")]
    counts = [line.partition("{")[2].partition("}")[0] for line in lines if line.startswith("xmc_top_score_count{")]
    per_model = len(buckets) // len(counts)
    shares = {of: (number % per_model + 1) / per_model for number, of in enumerate(buckets)}
    instants = [now - days * DAY_SECONDS + minute * 60 for days in (7, 1) for minute in range(-5, 15)]
    return "\n".join(
        [
            *_recorded("version:xmc_top_score:share_rate1h", shares, instants),
            *_recorded("version:xmc_top_score:queries_increase1h", dict.fromkeys(counts, 1000.0), instants),
            "# EOF\n",
        ]
    )


def _recorded(name: str, values: dict[str, float], instants: list[float]) -> Iterator[str]:
    """A series that a rule records, in the OpenMetrics format."""
    yield f"# TYPE {name} gauge"
    for labels, value in values.items():
        yield from (f'{name}{{job="{JOB}",{labels}}} {value} {instant:.0f}' for instant in instants)
