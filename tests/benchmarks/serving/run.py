"""Every server around one and the same core, beside the bare loop, in one run on one machine.

    tests/benchmarks/serving/environment.sh
    python -m tests.benchmarks.serving.run BUNDLE TEXTS

BUNDLE takes texts; TEXTS holds one a line. Each server of another's making runs in an environment of `build/serving`
with one thread for the core and with as many as there are processors; shown is the better. Rounds repeat, so that a
busy moment of the machine is nobody's; of each figure the best round counts. Ratios are to the bare loop: its best
batch, its lone query.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from service.measuring.bench import Figures, Plan, bench
from tests.benchmarks.server import Labels, ask, running

OTHERS = Path("build/serving/venv/bin/python")
BENTOML = Path("build/serving/venv-bentoml/bin/python")
K = 5
CONNECTIONS = 64
WARM_UP_SECONDS, SECONDS = 1.0, 5.0
COMPARED_TEXTS = 50
# Of capacity: the load at which tail latency is read, and the overload.
STEADY, OVERLOAD = 0.7, 3.0
# Between answers of the same core that was asked in other batches.
SCORE_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Contender:
    """A server to start.

    Attributes:
        name: in the table.
        command: without the bundle, the port and the threads.
        threads: numbers of threads to try; None leaves it to the server.
    """

    name: str
    command: tuple[str, ...]
    threads: tuple[int | None, ...]


@dataclass
class Measured:
    """The best rounds of one contender.

    Attributes:
        idle_p50_ms: median with one client.
        capacity: answers a second to 64 clients.
        threads: that gave the capacity.
        steady: the open loop at a share of the capacity; of ours only.
        overload: the open loop at several times the capacity; of ours only.
    """

    idle_p50_ms: float = float("inf")
    capacity: float = 0.0
    threads: int | None = None
    steady: list[Figures] = field(default_factory=list)
    overload: list[Figures] = field(default_factory=list)


def main() -> None:
    """Measure all contenders and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("texts", type=Path)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these contenders alone")
    chosen = parser.parse_args()
    processors = len(os.sched_getaffinity(0))
    contenders = [one for one in _contenders(processors) if chosen.only is None or one.name in chosen.only]
    measured = {one.name: Measured() for one in contenders}
    single_ms, best = float("inf"), 0.0
    expected: list[Labels] | None = None
    for _ in range(chosen.rounds):
        for threads in sorted({1, processors}):
            bare = _bare(chosen.bundle, chosen.texts, threads)
            single_ms = min(single_ms, bare["single_p50_ms"])
            best = max(best, *bare["per_second"].values())
        for one in contenders:
            for threads in one.threads:
                with _serving(one, chosen.bundle, threads) as url:
                    answers = [ask(url, text, K) for text in _texts(chosen.texts)[:COMPARED_TEXTS]]
                    expected = expected or answers
                    _require_equal(one.name, expected, answers)
                    _measure(measured[one.name], url, chosen.texts, threads, is_ours=one.threads == (None,))
    print(f"bare loop: {best:,.0f}/s at its best batch, a lone query {single_ms:.2f} ms")
    print(f"{'':12}{'capacity/s':>12}{'of bare':>9}{'idle p50 ms':>13}{'above bare':>12}{'threads':>9}")
    for name, line in measured.items():
        print(
            f"{name:12}{line.capacity:12,.0f}{line.capacity / best:9.2f}{line.idle_p50_ms:13.2f}"
            f"{line.idle_p50_ms - single_ms:12.2f}{line.threads or 'default':>9}"
        )
    for name, line in measured.items():
        _print_loads(name, line)


def _contenders(processors: int) -> list[Contender]:
    def other(name: str, python: Path = OTHERS) -> Contender:
        command = (str(python), "-m", f"tests.benchmarks.serving.{name}_server")
        return Contender(name, command, tuple(sorted({1, processors})))

    ours = Contender("xmcserve", (sys.executable, "-m", "service.cli", "run"), (None,))
    return [ours, *map(other, ("fastapi", "litserve", "mosec")), other("bentoml", BENTOML)]


def _measure(line: Measured, url: str, texts: Path, threads: int | None, *, is_ours: bool) -> None:
    def figures(**load: object) -> Figures:
        return bench(Plan(url, queries=texts, k=K, **load))[0]  # type: ignore[arg-type]

    figures(concurrency=(CONNECTIONS,), seconds=WARM_UP_SECONDS)
    idle = figures(concurrency=(1,), seconds=SECONDS)
    line.idle_p50_ms = min(line.idle_p50_ms, idle.p50_ms or float("inf"))
    capacity = figures(concurrency=(CONNECTIONS,), seconds=SECONDS).answered_per_second
    if capacity > line.capacity:
        line.capacity, line.threads = capacity, threads
    if is_ours:
        line.steady.append(figures(rates=(STEADY * capacity,), seconds=SECONDS))
        line.overload.append(figures(rates=(OVERLOAD * capacity,), seconds=SECONDS))


def _print_loads(name: str, line: Measured) -> None:
    for steady, overload in zip(line.steady, line.overload, strict=True):
        assert steady.offered_per_second
        assert steady.p99_ms
        assert overload.p99_ms
        capacity = steady.offered_per_second / STEADY
        print(
            f"{name}, a round: at {STEADY:.0%} of {capacity:,.0f}/s p99 {steady.p99_ms:.1f} ms "
            f"({steady.p99_ms / line.idle_p50_ms:.1f} times idle p50); at {OVERLOAD:.0f} times it answered "
            f"{overload.answered_per_second / capacity:.0%} of capacity, p99 {overload.p99_ms:.1f} ms "
            f"({overload.p99_ms / steady.p99_ms:.1f} times)"
        )


def _bare(bundle: Path, texts: Path, threads: int) -> dict[str, object]:
    command = [
        sys.executable,
        "-m",
        "tests.benchmarks.serving.bare",
        str(bundle),
        str(texts),
        "--threads",
        str(threads),
    ]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    result: dict[str, object] = json.loads(output)
    return result


def _serving(contender: Contender, bundle: Path, threads: int | None) -> contextlib.AbstractContextManager[str]:
    where = ["--bundle", str(bundle)] if threads is None else [str(bundle), "--threads", str(threads)]
    return running([*contender.command, *where])


def _require_equal(name: str, expected: Sequence[Labels], found: Sequence[Labels]) -> None:
    for wanted, answer in zip(expected, found, strict=True):
        same = all(abs(a[1] - b[1]) <= SCORE_TOLERANCE for a, b in zip(wanted, answer, strict=True))
        if not same or {a[0] for a in wanted[:-1]} - {b[0] for b in answer}:
            raise SystemExit(f"{name} answers {answer}, others {wanted}")


def _texts(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8").splitlines()


if __name__ == "__main__":
    main()
