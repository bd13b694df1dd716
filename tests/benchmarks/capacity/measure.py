"""What bundles take: memory in the process that would serve them, and time in an engine on one thread."""

from __future__ import annotations

import os
import re
import sys
import time
import urllib.request
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from service.bags import Bag
from service.bundle import open_bundle
from service.decoders.search import OUTPUT
from service.engine import Engine
from service.measuring.bench import Plan, bench
from service.models.launch import Order, launch
from service.reranking import Reranker
from service.search.topk import TopK
from service.settings import Settings
from tests.benchmarks.capacity.pace import Pace, Seconds, one_processor
from tests.benchmarks.capacity.resident import Resident, resident
from tests.benchmarks.server import running
from tests.service.models.processes import children_of

Floats = NDArray[np.float32]

BATCH_ROWS, BATCHES = 32, 3
K, RERANKED_K = 10, 100
# Over HTTP a figure is that of so many windows of so many seconds, after a longer one that is not counted.
CONNECTIONS, WARM_SECONDS, WINDOW_SECONDS, WINDOWS = 64, 4.0, 2.0, 3
TICK = os.sysconf("SC_CLK_TCK")
NONE = Path("/none")


class Times(NamedTuple):
    """Seconds of a query: medians of queries, and of batches."""

    lone_encode: float
    lone_search: float
    batch_encode: float
    batch_search: float


class Served(NamedTuple):
    """A model behind HTTP.

    Attributes:
        lone: seconds of a lone query.
        hop: the part of it beyond the engine.
        http: seconds of processors for each query of many, of the process that speaks HTTP.
        model: the same of the model's process.
        memory: of the process that speaks HTTP.
    """

    lone: float
    hop: float
    http: float
    model: float
    memory: Resident


def opened(path: Path) -> Engine:
    """An engine on one thread."""
    engine = Engine.open(open_bundle(path), device="cpu", threads=1)
    engine.warm_up()
    return engine


def memory_of(path: Path) -> Resident:
    """Memory of a model's process that is ready to answer."""
    worker = launch(Order(path, Settings(device="cpu")))
    try:
        worker.wait_until_loaded()
        return resident(worker.process.pid, path)
    finally:
        worker.abandon()


def times_of(
    engines: Sequence[Engine], queries: Sequence[str], k: int, pace: Pace, tokens: int | None = None
) -> list[Times]:
    """Times of each engine at the usual pace, in the same minute: they are measured in turn.

    Args:
        engines: on one thread each.
        queries: at least as many as a batch has.
        k: labels for each.
        pace: of the processor, at which times count.
        tokens: that each query is cut to, of texts joined until they have so many; None: as they are.
    """
    bags_EQ = [_bags(engine, queries, tokens) for engine in engines]
    lone = [[[bag] for bag in bags] for bags in bags_EQ]
    batches = [[bags[low : low + BATCH_ROWS] for low in range(0, len(bags), BATCH_ROWS)] for bags in bags_EQ]
    lone_E2 = _seconds_of_processor(engines, lone, k, pace)
    batch_E2 = _seconds_of_processor(engines, batches, k, pace) / BATCH_ROWS
    return [Times(*one, *many) for one, many in zip(lone_E2.tolist(), batch_E2.tolist(), strict=True)]


def search_times(engines: Sequence[Engine], vectors: Sequence[Floats], pace: Pace) -> list[tuple[float, float]]:
    """Seconds of a search for a lone query, and for each of a batch, by vectors like those of the labels.

    What an untrained encoder gives is as far from all labels as from any: searches that pass over labels would not.

    Args:
        engines: on one thread each; they are measured in turn.
        vectors: for each, of at least as many queries as a batch has.
        pace: of the processor, at which times count.
    """

    def seconds(engine: Engine, vectors_QD: Floats, rows: slice) -> Seconds:
        started = time.thread_time()
        engine.live.view.decoder.decode({OUTPUT: vectors_QD[rows]}, K)
        return np.array(time.thread_time() - started)

    asked = list(zip(engines, vectors, strict=True))
    single = [slice(row, row + 1) for row in range(BATCHES * BATCH_ROWS)]
    batches = [slice(low, low + BATCH_ROWS) for low in range(0, BATCHES * BATCH_ROWS, BATCH_ROWS)]
    for engine, vectors_QD in asked:
        seconds(engine, vectors_QD, batches[0])
    with one_processor():
        alone_E, together_E = (
            _in_turn([[partial(seconds, *one, rows) for rows in every] for one in asked], pace)
            for every in (single, batches)
        )
    return list(zip(alone_E.tolist(), (together_E / BATCH_ROWS).tolist(), strict=True))


def rerank_times(path: Path, engine: Engine, queries: Sequence[str], pace: Pace) -> tuple[float, float]:
    """Seconds of re-ranking a lone query, and each of a batch."""
    bundle = open_bundle(path)
    reranker = Reranker.from_bundle(bundle)
    assert reranker is not None
    bags = engine.prepare(queries[:BATCH_ROWS])
    rng = np.random.default_rng(0)
    ids_QK = rng.integers(0, bundle.manifest.label_count, (len(bags), RERANKED_K))
    scores_QK = -np.sort(-rng.random(ids_QK.shape, dtype=np.float32), axis=1)

    def seconds(rows: slice) -> Seconds:
        started = time.thread_time()
        reranker.rerank(bags[rows], TopK(ids_QK[rows], scores_QK[rows]))
        return np.array(time.thread_time() - started)

    seconds(slice(None))
    with one_processor():
        alone = pace.medians([partial(seconds, slice(row, row + 1)) for row in range(len(bags))])
        together = pace.medians([partial(seconds, slice(None))])
    return float(np.nanmedian(alone)), float(np.nanmedian(together)) / len(bags)


def _bags(engine: Engine, queries: Sequence[str], tokens: int | None) -> list[Bag]:
    """Of some batches."""
    bags = engine.prepare(queries[: BATCHES * BATCH_ROWS])
    if tokens is None:
        return bags
    joined = np.concatenate([bag.ids for bag in bags])
    starts = (np.arange(len(bags)) * tokens) % (len(joined) - tokens)
    return [Bag(joined[low : low + tokens], np.ones(tokens, dtype=np.float32)) for low in starts]


def _seconds_of_processor(
    engines: Sequence[Engine], batches: Sequence[Sequence[Sequence[Bag]]], k: int, pace: Pace
) -> Seconds:
    """Seconds of encoding and of search of a batch, for each engine the median of all of its own, (E, 2).

    Of the processor, not of the clock: one thread computes, and what it waits for others is not its work.
    """

    def seconds(engine: Engine, batch: Sequence[Bag]) -> Seconds:
        answer = engine.run(batch, k)
        return np.array([answer.encode_seconds, answer.search_seconds])

    asked = list(zip(engines, batches, strict=True))
    for engine, own in asked:
        seconds(engine, own[0])
    with patch("service.engine.perf_counter", time.thread_time), one_processor():
        return _in_turn([[partial(seconds, engine, batch) for batch in own] for engine, own in asked], pace)


def _in_turn(runs: Sequence[Sequence[Callable[[], Seconds]]], pace: Pace) -> Seconds:
    """The median of the runs of each row, which have as many each; one of every row, then the next."""
    found = pace.medians([run for turn in zip(*runs, strict=True) for run in turn])
    by_turn = found.reshape(-1, len(runs), *found.shape[1:])
    medians: Seconds = np.nanmedian(by_turn, axis=0)
    return medians


def served(path: Path, queries: Sequence[str], file: Path, pace: Pace) -> Served:
    """A server of the bundle, loaded, and asked one query at a time.

    Args:
        path: the bundle.
        queries: that are asked.
        file: they are written to.
        pace: of a processor, at which times count.
    """
    file.write_text("\n".join(query for query in queries[:1000] if query.strip()) + "\n", encoding="utf-8")
    command = [sys.executable, "-m", "service.cli", "run", "--bundle", str(path), "--device", "cpu"]
    with running(command) as url:
        (server,) = (pid for pid in children_of(os.getpid()) if "service.cli" in _command(pid))
        (model,) = children_of(server)

        def loaded() -> Seconds:
            before, asked_before = (_seconds(server), _seconds(model)), _answered(url)
            bench(Plan(url=url, queries=file, k=K, concurrency=(CONNECTIONS,), seconds=WINDOW_SECONDS))
            after, asked = (_seconds(server), _seconds(model)), _answered(url) - asked_before
            return (np.array(after) - np.array(before)) / asked

        def alone() -> Seconds:
            (lone,) = bench(Plan(url=url, queries=file, k=K, concurrency=(1,), seconds=WINDOW_SECONDS))
            assert lone.p50_ms is not None
            return np.array([lone.p50_ms, lone.p50_ms - lone.mean_ms["encode"] - lone.mean_ms["search"]]) / 1000

        bench(Plan(url=url, queries=file, k=K, concurrency=(CONNECTIONS,), seconds=WARM_SECONDS))
        windows: list[Callable[[], Seconds]] = [loaded] * WINDOWS
        http, whole = np.nanmedian(pace.medians(windows), axis=0)
        lone, hop = np.nanmedian(pace.medians([alone] * WINDOWS), axis=0)
        return Served(float(lone), float(hop), float(http), float(whole), resident(server, NONE))


def _command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()


def _seconds(pid: int) -> float:
    """Of processors that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def _answered(url: str) -> int:
    """Requests for labels that a server has answered."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    counts = re.findall(r'^xmc_requests_total\{[^}]*endpoint="/predict"[^}]*\} (\S+)$', text, re.MULTILINE)
    return round(sum(map(float, counts)))
