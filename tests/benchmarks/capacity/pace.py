"""Whether the processor works at its usual pace.

On a shared machine others halve the speed of a core for seconds or for minutes, and a thread's time counts that as
work. A fixed product of matrices tells: what was measured counts where the product took as long before and after it as
it usually does. Plans are held against bundles at the pace at which constants were measured, or not at all.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

# Numbers of the matrices fit into a core's own cache, and leave most of it alone.
SIDE, PRODUCTS, REPEATS = 96, 3, 3
LOOKED_AT, PAUSE = 30.0, 0.02
# Products take so much more or less than usual at the usual pace.
ALLOWED = 0.12
# Each place counts with the median of so many runs, as far as a figure's time goes; of these places there must be one.
RUNS, FIGURE_SECONDS, FEWEST = 3, 6.0, 8
# A machine whose pace is another one for so long is busy with something else.
PATIENCE = 600.0

Seconds = NDArray[np.float64]


@dataclass(frozen=True)
class Pace:
    """A pace of the processor: seconds that the product usually takes."""

    seconds: float

    @classmethod
    def usual(cls) -> Pace:
        """The pace of half a minute."""
        found, until = [], time.perf_counter() + LOOKED_AT
        while time.perf_counter() < until:
            found.append(product_seconds())
            time.sleep(PAUSE)
        return cls(float(np.median(found)))

    def holds(self) -> bool:
        """Whether the processor works at it now."""
        return abs(product_seconds() / self.seconds - 1) <= ALLOWED

    def medians(self, runs: Sequence[Callable[[], Seconds]]) -> Seconds:
        """What some runs return that were done at this pace, each several times: medians, of most of the runs.

        Args:
            runs: each does what is measured, and returns some seconds.

        Returns:
            One row for each run that could be measured.

        Raises:
            RuntimeError: the processor had another pace all the time.
        """
        found: list[list[Seconds]] = [[] for _ in runs]
        started = time.perf_counter()
        for place in self._places(found, started):
            before = self.holds()
            seconds = runs[place]()
            if before and self.holds():
                found[place].append(seconds)
        return np.stack([np.median(rows, axis=0) for rows in found if rows])

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
                        f"expected a product at {1e6 * self.seconds:.1f} us, as when constants were measured, found "
                        f"{1e6 * product_seconds():.1f}: others slow this machine down, or no longer do; measure later"
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


def _spent(product: Callable[[], object]) -> float:
    started = time.thread_time()
    for _ in range(PRODUCTS):
        product()
    return (time.thread_time() - started) / PRODUCTS


MATRIX = np.random.default_rng(0).random((SIDE, SIDE), dtype=np.float32)
