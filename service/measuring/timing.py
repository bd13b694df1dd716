"""``xmc-serve check --time``: how long one query alone takes, from text to labels, without HTTP."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from time import perf_counter

import numpy as np

from service.engine import Engine
from service.models.queries import Query

TIMED_K = 5


@dataclass(frozen=True)
class Latency:
    """Milliseconds of a query that has the engine to itself.

    Attributes:
        queries: how many were asked, one after the other.
        p50_ms: median from tokens or features to labels: encoder and decoder.
        p99_ms: 99th percentile of the same.
        prepare_p50_ms: median of what comes before: from text to tokens, or the checks of features.
    """

    queries: int
    p50_ms: float
    p99_ms: float
    prepare_p50_ms: float

    def as_json(self) -> str:
        """One flat object."""
        return json.dumps(asdict(self), indent=1) + "\n"


def time_queries(engine: Engine, queries: Sequence[Query], count: int, k: int) -> Latency:
    """Ask queries in turn until ``count`` are answered.

    Args:
        engine: warmed up.
        queries: at least one.
        count: at least 1.
        k: labels for each.
    """
    prepare_ms, run_ms = [], []
    for query in islice(cycle(queries), count):
        started = perf_counter()
        bags = engine.prepare([query])
        prepared = perf_counter()
        engine.run(bags, k)
        ended = perf_counter()
        prepare_ms.append(1000 * (prepared - started))
        run_ms.append(1000 * (ended - prepared))
    p50_ms, p99_ms = np.percentile(run_ms, (50, 99))
    return Latency(count, float(p50_ms), float(p99_ms), float(np.median(prepare_ms)))
