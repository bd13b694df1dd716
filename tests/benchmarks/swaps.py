"""Bundles swapped for each other and labels changed under load: what fails, and what the memory does.

    python -m tests.benchmarks.swaps FOLDER FIRST SECOND --swaps 100

FIRST and SECOND are bundles in FOLDER. A server starts with the first, clients ask without a pause, and the two replace
each other in turn; after each swap the best label of a query is disabled and enabled again. Printed is a line for every
tenth of the swaps: answers, what was no answer, the latencies of the last bench, processes, and the resident memory of
the process that speaks HTTP and of all models.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import urllib.request
from collections import Counter
from pathlib import Path

from service.access.keys import line_of, new_secret
from service.measuring.bench import Plan, bench
from tests.benchmarks.administrator import Administrator
from tests.benchmarks.endurance import resident_mb
from tests.benchmarks.server import running

CONNECTIONS = 8
BENCH_SECONDS = 2.0
LINES = 10


def main() -> None:
    """Swap under load."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("bundles", nargs=2)
    parser.add_argument("--swaps", type=int, default=100)
    parser.add_argument("--connections", type=int, default=CONNECTIONS)
    chosen = parser.parse_args()
    secret = new_secret()
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "keys").write_text(line_of("swaps", secret, ()))
        command = [sys.executable, "-m", "service.cli", "run", "--bundle", str(chosen.folder / chosen.bundles[0])]
        command += ["--models-dir", str(chosen.folder), "--admin-keys-file", f"{place}/keys", "--labels-dir", place]
        with running(command) as url:
            load = Load(url, chosen.connections)
            load.start()
            swap(url, Administrator(url, secret), chosen.bundles, chosen.swaps, load)
            load.stop()


def swap(url: str, administrator: Administrator, bundles: list[str], swaps: int, load: Load) -> None:
    """Replace the bundles by each other and print what happens."""
    print("  swaps   answers  failed  p50 ms  p99 ms  models    http MB   models MB", flush=True)
    for done in range(swaps + 1):
        if done:
            administrator.load(bundles[done % 2])
            best = administrator.ask("a query")[0]
            administrator.change_labels(disable=[best])
            assert best not in administrator.ask("a query")
            administrator.change_labels(enable=[best])
        if done % max(1, swaps // LINES) == 0:
            http, models = resident_mb(url)
            failed = sum(count for status, count in load.statuses.items() if status != "200")
            p50, p99 = load.latencies
            processes = series(url).count("xmc_model_resident_bytes{")
            print(
                f"{done:7d} {load.statuses['200']:9,d} {failed:7d} {p50:7.2f} {p99:7.2f} {processes:7d} "
                f"{http:10.1f} {models:11.1f}",
                flush=True,
            )


def series(url: str) -> str:
    """What the server exposes."""
    with urllib.request.urlopen(f"{url}/metrics") as answer:
        text: str = answer.read().decode()
    return text


class Load(threading.Thread):
    """Clients that ask until they are stopped.

    Attributes:
        statuses: answers by status; "broken" are connections that ended without one.
        latencies: p50 and p99 of the last bench, in milliseconds.
    """

    def __init__(self, url: str, connections: int) -> None:
        super().__init__()
        self._plan = Plan(url, concurrency=(connections,), seconds=BENCH_SECONDS)
        self._is_over = threading.Event()
        self.statuses: Counter[str] = Counter()
        self.latencies = (0.0, 0.0)

    def run(self) -> None:
        """Ask."""
        while not self._is_over.is_set():
            (figures,) = bench(self._plan)
            self.statuses.update(figures.statuses)
            self.statuses["broken"] += figures.broken
            self.latencies = figures.p50_ms or 0.0, figures.p99_ms or 0.0

    def stop(self) -> None:
        """Ask no more."""
        self._is_over.set()
        self.join()


if __name__ == "__main__":
    main()
