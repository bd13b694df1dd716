"""What bundles take: memory in the process that would serve them, and time in an engine on one thread."""

from __future__ import annotations

import os
import re
import sys
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from service.bags import Bag
from service.bundle import open_bundle
from service.engine import Engine
from service.measuring.bench import Plan, bench
from service.models.launch import Order, launch
from service.reranking import Reranker
from service.search.topk import TopK
from service.settings import Settings
from tests.benchmarks.capacity.bundles import Case
from tests.benchmarks.capacity.resident import Resident, resident
from tests.benchmarks.server import running
from tests.service.models.processes import children_of

BATCH_ROWS, BATCHES, ROUNDS = 32, 3, 3
# A case takes no longer than this for each of its figures, and fewer queries instead.
MOST_SECONDS = 6.0
K, RERANKED_K = 10, 100
CONNECTIONS, HTTP_SECONDS = 64, 5.0
TICK = os.sysconf("SC_CLK_TCK")
NONE = Path("/none")


class Times(NamedTuple):
    """Seconds of a query: medians of lone ones, and the least of batches."""

    lone_encode: float
    lone_search: float
    batch_encode: float
    batch_search: float


class Http(NamedTuple):
    """A small model behind HTTP: seconds of processors for each query, and of a lone query beyond its engine."""

    http: float
    batcher: float
    hop: float
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


def times_of(engine: Engine, queries: Sequence[str], k: int, tokens: int | None = None) -> Times:
    """Each query's least time of some rounds counts: the rest is other work on the machine.

    Args:
        engine: on one thread.
        queries: at least as many as a batch has.
        k: labels for each.
        tokens: that each query is cut to, of texts joined until they have so many; None: as they are.
    """
    bags = engine.prepare(queries[: BATCHES * BATCH_ROWS])
    if tokens is not None:
        joined = np.concatenate([bag.ids for bag in bags])
        starts = (np.arange(len(bags)) * tokens) % (len(joined) - tokens)
        bags = [Bag(joined[low : low + tokens], np.ones(tokens, dtype=np.float32)) for low in starts]
    alone = _least(engine, [[bag] for bag in bags], k)
    together = _least(engine, [bags[low : low + BATCH_ROWS] for low in range(0, len(bags), BATCH_ROWS)], k)
    encode, search = np.median(alone, axis=0)
    batch_encode, batch_search = together.min(axis=0) / BATCH_ROWS
    return Times(float(encode), float(search), float(batch_encode), float(batch_search))


def rerank_times(path: Path, engine: Engine, queries: Sequence[str]) -> tuple[float, float]:
    """Seconds of re-ranking a lone query, and each of a batch."""
    bundle = open_bundle(path)
    reranker = Reranker.from_bundle(bundle)
    assert reranker is not None
    bags = engine.prepare(queries[:BATCH_ROWS])
    rng = np.random.default_rng(0)
    ids_QK = rng.integers(0, bundle.manifest.label_count, (len(bags), RERANKED_K))
    scores_QK = -np.sort(-rng.random(ids_QK.shape, dtype=np.float32), axis=1)

    def seconds(rows: slice) -> float:
        started = time.thread_time()
        reranker.rerank(bags[rows], TopK(ids_QK[rows], scores_QK[rows]))
        return time.thread_time() - started

    seconds(slice(None))
    alone = [min(seconds(slice(row, row + 1)) for _ in range(ROUNDS)) for row in range(len(bags))]
    return float(np.median(alone)), min(seconds(slice(None)) for _ in range(ROUNDS)) / len(bags)


def _least(engine: Engine, batches: Sequence[Sequence[Bag]], k: int) -> NDArray[np.float64]:
    """Seconds of encoding and of search of each batch, as far as the time goes, (N, 2).

    Of the processor, not of the clock: one thread computes, and what it waits for others is not its work.
    """
    engine.run(batches[0], k)
    with patch("service.engine.perf_counter", time.thread_time):
        return _least_of_processor(engine, batches, k)


def _least_of_processor(engine: Engine, batches: Sequence[Sequence[Bag]], k: int) -> NDArray[np.float64]:
    least: dict[int, NDArray[np.float64]] = {}
    for _ in range(ROUNDS):
        started = time.perf_counter()
        for place, batch in enumerate(batches):
            answer = engine.run(batch, k)
            spent = np.array([answer.encode_seconds, answer.search_seconds])
            least[place] = np.minimum(least.get(place, spent), spent)
            if time.perf_counter() - started > MOST_SECONDS / ROUNDS:
                break
    return np.stack(list(least.values()))


def http_of(case: Case, queries: Sequence[str], file: Path) -> Http:
    """A server of the case's bundle, loaded and then asked one query at a time."""
    engine = opened(case.path)
    alone = times_of(engine, queries, K)
    file.write_text("\n".join(query for query in queries[:1000] if query.strip()) + "\n", encoding="utf-8")
    command = [sys.executable, "-m", "service.cli", "run", "--bundle", str(case.path), "--device", "cpu"]
    with running(command) as url:
        (server,) = (pid for pid in children_of(os.getpid()) if "service.cli" in _command(pid))
        (model,) = children_of(server)
        plan = Plan(url=url, queries=file, k=K, concurrency=(CONNECTIONS,), seconds=HTTP_SECONDS)
        bench(plan)
        before, asked_before = (_seconds(server), _seconds(model)), _answered(url)
        bench(plan)
        after, asked = (_seconds(server), _seconds(model)), _answered(url) - asked_before
        http, whole = ((late - early) / asked for early, late in zip(before, after, strict=True))
        (lone,) = bench(Plan(url=url, queries=file, k=K, concurrency=(1,), seconds=HTTP_SECONDS))
        memory = resident(server, NONE)
    assert lone.p50_ms is not None
    hop = (lone.p50_ms - lone.mean_ms["encode"] - lone.mean_ms["search"]) / 1000
    batcher = whole - alone.batch_encode - alone.batch_search
    return Http(http, batcher, hop, memory)


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
