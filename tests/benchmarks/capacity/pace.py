"""How fast processor and memory work, beside their usual pace.

On a shared machine others halve the speed of a core for seconds or for minutes, and a thread's time counts that as
work; others slow the memory down while a core's own caches are as fast as ever. A fixed product of matrices tells of
the first, reading numbers that no cache holds of the second, before and after everything that is measured. Where
neither is far from usual, seconds are told as they would have been at the usual pace, half as the product has it and
half as reading has it; at another pace nothing is measured. Plans are held against bundles at the pace at which
constants were measured.
"""

from __future__ import annotations

import itertools
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

# Numbers of the matrices fit into a core's own cache, and leave most of it alone.
SIDE, PRODUCTS, REPEATS = 96, 3, 3
LOOKED_AT, PAUSE = 30.0, 0.02
# Products, and readings, take at most so much more or less than usual. A core that nobody shares is beyond that.
ALLOWED = 0.25
# Numbers that are read at a time, and of how many: far more than all caches hold. Reading them takes the place of what
# is measured in a core's own cache, so memory is looked at seldom beside what takes less time.
READ, HELD, READ_EVERY = 1 << 18, 1 << 26, 0.1
# Each place counts with the median of so many runs, as far as a figure's time goes; of these places there must be one.
RUNS, FIGURE_SECONDS, FEWEST = 3, 6.0, 8
# A machine whose pace is another one for so long is busy with something else.
PATIENCE = 600.0

Seconds = NDArray[np.float64]


@dataclass
class Pace:
    """A pace of the machine.

    Attributes:
        seconds: that the product usually takes.
        reading: seconds that it usually takes to read from memory.
    """

    seconds: float
    reading: float
    _looked: float = field(default=-READ_EVERY, init=False, repr=False)
    _slowness: float = field(default=1.0, init=False, repr=False)

    @classmethod
    def usual(cls) -> Pace:
        """The pace of half a minute."""
        found, until = [], time.perf_counter() + LOOKED_AT
        while time.perf_counter() < until:
            found.append((product_seconds(), reading_seconds()))
            time.sleep(PAUSE)
        return cls(*np.median(found, axis=0).tolist())

    def slowness(self) -> float | None:
        """Seconds that now take the place of one at this pace; None where the machine has another one."""
        if time.perf_counter() - self._looked > READ_EVERY:
            self._slowness = reading_seconds() / self.reading
            self._looked = time.perf_counter()
        found = product_seconds() / self.seconds, self._slowness
        return math.sqrt(math.prod(found)) if all(abs(one - 1) <= ALLOWED for one in found) else None

    def found(self) -> str:
        """The pace of now beside this one."""
        return (
            f"a product at {1e6 * self.seconds:.1f} us and a reading at {1e6 * self.reading:.1f}, "
            f"found {1e6 * product_seconds():.1f} and {1e6 * reading_seconds():.1f}"
        )

    def medians(self, runs: Sequence[Callable[[], Seconds]]) -> Seconds:
        """What some runs return, each done several times near this pace, in turn: medians, of most of the runs.

        Args:
            runs: each does what is measured, and returns some seconds.

        Returns:
            One row for each run, in seconds of this pace; NaN for those that could not be measured.

        Raises:
            RuntimeError: the machine had another pace all the time.
        """
        found: list[list[Seconds]] = [[] for _ in runs]
        started = time.perf_counter()
        for place in self._places(found, started):
            before = self.slowness()
            seconds = runs[place]()
            after = self.slowness()
            if before is not None and after is not None:
                found[place].append(seconds / math.sqrt(before * after))
        unknown = np.full_like(next(rows[0] for rows in found if rows), np.nan)
        return np.stack([np.median(rows, axis=0) if rows else unknown for rows in found])

    def _places(self, found: Sequence[Sequence[Seconds]], started: float) -> Iterator[int]:
        """Places that have not been measured often enough, in turn, until there is no more time."""
        least = min(FEWEST, len(found))
        while any(len(rows) < RUNS for rows in found):
            for place, rows in enumerate(found):
                spent = time.perf_counter() - started
                if spent > FIGURE_SECONDS and sum(map(bool, found)) >= least:
                    return
                if spent > PATIENCE:
                    raise RuntimeError(
                        f"expected the pace of the constants, {self.found()}: others slow this machine down, or no "
                        "longer do; measure later"
                    )
                if len(rows) < RUNS:
                    yield place


@contextmanager
def one_processor() -> Iterator[None]:
    """This thread stays on one processor, so that the product tells of the one that is measured."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def product_seconds() -> float:
    """What the product takes now: the least of a few, which an interrupt does not spoil."""
    return min(_spent(partial(np.matmul, MATRIX, MATRIX)) for _ in range(REPEATS))


def reading_seconds() -> float:
    """What a reading takes now: the least of a few, of other numbers each time."""
    return min(_spent(partial(np.max, next(PLACES)), 1) for _ in range(REPEATS))


def _spent(work: Callable[[], object], times: int = PRODUCTS) -> float:
    started = time.thread_time()
    for _ in range(times):
        work()
    return (time.thread_time() - started) / times


MATRIX = np.random.default_rng(0).random((SIDE, SIDE), dtype=np.float32)
# Not of zeros, which the system would keep in one page.
PLACES = itertools.cycle(np.split(np.ones(HELD, dtype=np.float32), HELD // READ))
