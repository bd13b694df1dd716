"""What shards on other machines cost, measured here, and what 50 and 500 million labels need by that.

    xmc-export shard BUNDLE --shards 2 --out build/scale/2        # for each number of shards
    python -m tests.benchmarks.scale curve BUNDLE build/scale/2 build/scale/4 --file build/scale/curve.json
    python -m tests.benchmarks.scale simulate --file build/scale/curve.json
    python -m tests.benchmarks.scale compare BUNDLE build/scale/2 --queries FILE

The first deploys each cut on a Ray of this machine and asks an engine, without HTTP, what it asks the whole bundle; the
hop is what a question takes that computes nothing, and merging what is left to the head when all shards have answered.
The second plans heads, which read queries, encode and merge, and shards, from the constants of `xmc-serve plan` for the
shards' sizes and from what the first has measured; where outputs are too large to send, shards encode. Machines have
``--cpu`` processors and ``--memory``; a shard's or a head's replica has one to itself. The third asks a whole bundle
and its shards on Ray each text of a file.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from service.bundle import Bundle, open_bundle
from service.bundle.manifest import DeclareSection
from service.bundle.shards import HEAD
from service.decoders.rows import merged
from service.distributed.environment import prepare
from service.engine import Engine
from service.planning.capacity import Pod
from service.planning.constants import Work, load
from service.planning.sizes import by_group, file_bytes
from service.planning.speed import speed_of
from service.planning.work import work_of
from service.planning.workload import Wishes, Workload, resolved
from service.search.topk import TopK, merge
from service.settings import Settings
from service.sharding.deferred import is_deferred
from service.sharding.shards import Shards

if TYPE_CHECKING:
    from service.distributed.shards import RayShards

K, BATCH_ROWS = 10, 32
ASKED, BATCHES, STREAMS, STREAM_SECONDS = 200, 60, 4, 6.0
# Of a question that computes nothing: for longer than other work on a shared machine is felt.
HOPS = 2000
# Of a float32; of a token's id and value, and how many a text has at most.
FLOAT_BYTES, TOKEN_BYTES, TOKENS = 4, 12, 128
# What is simulated. Two replicas of everything at least: one may die at any time.
MILLION, MOST_SHARDS, UTILISATION = 1_000_000, 10_000, 0.6
MODELS = {
    "mach": Wishes("mach", MILLION, dimension=64),
    "unidec": Wishes("unidec", MILLION, dimension=256, index="flat"),
}
RATES = (100.0, 1000.0)
NO_ENCODER = {"encoder_bytes": 0.0, "body_weights": 0.0, "outputs": 0.0}
# Of ten gigabits a second.
NETWORK_BYTES = 1.25e9


@dataclass(frozen=True)
class Cost:
    """Of one number of shards, in milliseconds but for the last.

    Attributes:
        shards: 1 for the whole bundle, in this process.
        lone: p50 of a query alone, encoding included.
        slowest: p99 of it.
        batch: p50 of each query of a batch.
        hop: p50 of a question to all shards that computes nothing.
        merging: p50 of what the head does when all shards have answered a query.
        rate: queries a second of several batches at once.
    """

    shards: int
    lone: float
    slowest: float
    batch: float
    hop: float
    merging: float
    rate: float


def main() -> None:
    """Measure, or simulate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    curve = commands.add_parser("curve", help="measure numbers of shards on this machine")
    curve.add_argument("whole", type=Path)
    curve.add_argument("cuts", type=Path, nargs="+", help="folders of a head and its shards")
    curve.add_argument("--file", type=Path, required=True)
    curve.set_defaults(command=_curve)
    simulate = commands.add_parser("simulate", help="plan machines")
    simulate.add_argument("--file", type=Path, required=True, help="what curve has written")
    simulate.add_argument("--labels", type=float, nargs="+", default=[50.0, 500.0], help="in millions")
    simulate.add_argument("--cpu", type=float, default=16.0)
    simulate.add_argument("--memory", type=float, default=64.0, help="in GiB")
    simulate.set_defaults(command=_simulate)
    compare = commands.add_parser("compare", help="hold answers of shards against those of the whole bundle")
    compare.add_argument("whole", type=Path)
    compare.add_argument("cut", type=Path, help="a folder of a head and its shards")
    compare.add_argument("--queries", type=Path, required=True, help="a text a line")
    compare.set_defaults(command=_compare)
    chosen = parser.parse_args()
    chosen.command(chosen)


def _curve(chosen: argparse.Namespace) -> None:
    whole = open_bundle(chosen.whole)
    engine = Engine.open(whole, device="cpu")
    costs = [_cost(engine, 1, hop=0.0, merging=0.0)]
    expected = _tops(engine)
    for folder in chosen.cuts:
        with _cut(folder) as (head, cut, shards):
            for one, other in zip(_tops(cut), expected, strict=True):
                np.testing.assert_allclose(one.scores_QK, other.scores_QK, rtol=1e-5, atol=1e-6)
            hop = _p50([partial(shards._ask_all, "traits")] * HOPS)
            costs.append(_cost(cut, len(head.manifest.shards), hop=hop, merging=_merging(cut, head, shards)))
        print(_row(costs[-1]), flush=True)
    chosen.file.parent.mkdir(parents=True, exist_ok=True)
    chosen.file.write_text(json.dumps([asdict(cost) for cost in costs], indent=1) + "\n", encoding="utf-8")
    print(
        "| shards | lone p50 ms | p99 | hop | merging | a query of 32, ms | queries/s |\n|---|---|---|---|---|---|---|"
    )
    print("\n".join(map(_row, costs)))


def _compare(chosen: argparse.Namespace) -> None:
    whole = Engine.open(open_bundle(chosen.whole), device="cpu")
    texts = [line for line in chosen.queries.read_text(encoding="utf-8").splitlines() if line.strip()]
    equal, off = 0, 0.0
    with _cut(chosen.cut) as (_, cut, _):
        for low in range(0, len(texts), BATCH_ROWS):
            bags = whole.prepare(texts[low : low + BATCH_ROWS])
            expected, found = (engine.run(bags, K).top for engine in (whole, cut))
            equal += int((found.ids_QK == expected.ids_QK).all(axis=1).sum())
            off = max(off, float(np.abs(found.scores_QK - expected.scores_QK).max()))
    print(f"{equal:,} of {len(texts):,} answers have the same {K} labels in the same order; scores differ by {off:.2g}")


@contextmanager
def _cut(folder: Path) -> Iterator[tuple[Bundle, Engine, RayShards]]:
    """A head whose shards are on a Ray of this machine."""
    prepare()
    from service.distributed.opening import deployed  # reads what was set

    head = open_bundle(folder / HEAD)
    with deployed(head, Settings(ray="local", device="cpu")) as shards:
        yield head, Engine.open(head, device="cpu", shards=shards), shards


def _bags(engine: Engine, count: int) -> list[Any]:
    return list(islice(cycle(engine.prepare(engine.golden_queries)), count))


def _tops(engine: Engine) -> list[TopK]:
    return [engine.run([bag], K).top for bag in engine.prepare(engine.golden_queries)]


def _cost(engine: Engine, shards: int, *, hop: float, merging: float) -> Cost:
    """Times of an engine, whose shards may be elsewhere."""
    engine.warm_up()
    lone = _seconds([partial(engine.run, [bag], K) for bag in _bags(engine, ASKED)])
    batches = [_bags(engine, BATCH_ROWS)] * BATCHES
    batch = _p50([partial(engine.run, bags, K) for bags in batches]) / BATCH_ROWS
    with ThreadPoolExecutor(STREAMS) as pool:
        started = time.perf_counter()
        counts = list(pool.map(lambda _: _stream(engine, started + STREAM_SECONDS), range(STREAMS)))
        rate = sum(counts) / (time.perf_counter() - started)
    return Cost(
        shards=shards,
        lone=1000 * float(np.median(lone)),
        slowest=1000 * float(np.quantile(lone, 0.99)),
        batch=1000 * batch,
        hop=1000 * hop,
        merging=1000 * merging,
        rate=rate,
    )


def _stream(engine: Engine, until: float) -> int:
    """Batches one after the other; how many queries that were."""
    bags, answered = _bags(engine, BATCH_ROWS), 0
    while time.perf_counter() < until:
        engine.run(bags, K)
        answered += len(bags)
    return answered


def _merging(engine: Engine, head: Bundle, shards: Shards) -> float:
    """Seconds of what is left to the head, of one query, when all shards have answered."""
    outputs = engine._encoder.run(_bags(engine, 1)).outputs
    entries = head.manifest.shards
    if isinstance(head.manifest.method, DeclareSection):
        (embeddings,), count = outputs.values(), head.manifest.method.neighbours
        near = list(shards.nearest(embeddings, count).values())
        return _p50([partial(merged, near, [entry.first for entry in entries], count)] * ASKED)
    tops = shards.decode(outputs, K)
    return _p50(
        [lambda: merge([TopK(top.ids_QK + entries[one].first, top.scores_QK) for one, top in tops.items()], K)] * ASKED
    )


def _p50(works: Sequence[Callable[[], object]]) -> float:
    return float(np.median(_seconds(works)))


def _seconds(works: Sequence[Callable[[], object]]) -> list[float]:
    found = []
    for work in works:
        started = time.perf_counter()
        work()
        found.append(time.perf_counter() - started)
    return found


def _row(cost: Cost) -> str:
    return (
        f"| {cost.shards} | {cost.lone:.2f} | {cost.slowest:.2f} | {cost.hop:.2f} | {cost.merging:.3f} "
        f"| {cost.batch:.2f} | {cost.rate:,.0f} |"
    )


def _simulate(chosen: argparse.Namespace) -> None:
    costs = [Cost(**cost) for cost in json.loads(chosen.file.read_text(encoding="utf-8"))]
    machine = Pod("cpu", chosen.cpu, round(chosen.memory * 2**30), UTILISATION)
    print(f"machines of {chosen.cpu:g} processors and {chosen.memory:g} GiB, at {UTILISATION:.0%} of their processors")
    print("| model | labels | queries/s | shards, GB each | heads, GB each | machines | p50 ms | saturates first |")
    print("|---|---|---|---|---|---|---|---|")
    for name, wishes in MODELS.items():
        for millions in chosen.labels:
            workload = resolved(replace(wishes, labels=round(millions * MILLION)))
            for rate in RATES:
                print(f"| {name} | {millions:g}M | {rate:,.0f} | {_plan(workload, rate, machine, costs)} |")


def _plan(whole: Workload, rate: float, machine: Pod, costs: Sequence[Cost]) -> str:
    """The cells of a plan: as few shards as fit, and as many replicas of these and of heads as the rate takes."""
    constants = load()
    seconds, work = constants.seconds, work_of(whole, constants.files)
    deferred = is_deferred({"scores": (round(work["outputs"]),)})
    sent = TOKEN_BYTES * TOKENS if deferred else FLOAT_BYTES * work["outputs"]
    shards = next(count for count in range(1, MOST_SHARDS) if _shard(whole, count, deferred)[0] <= machine.memory_bytes)
    shard_bytes, shard_lone, shard_batch = _shard(whole, shards, deferred)
    beside = _beside(shards, costs)
    labels = by_group(file_bytes(whole, constants.files))["labels"]
    held = NO_ENCODER if deferred else {"held_bytes": 0.0}
    head_bytes = _process_bytes({**work, **held}) + labels + constants.memory.http
    encoding = 0.0 if deferred else seconds.batch[whole.encoder].of(work)
    head_batch = encoding + seconds.batcher + seconds.http + beside / BATCH_ROWS
    # Queries a second of one machine as a head, and of one machine for each shard.
    heads = {
        "processors of heads": UTILISATION * machine.processors / head_batch,
        "HTTP of heads": UTILISATION / seconds.http,
        "network of heads": UTILISATION * NETWORK_BYTES / (sent * shards),
    }
    of_shards = {
        "processors of shards": UTILISATION * machine.processors / shard_batch,
        "network of shards": UTILISATION * NETWORK_BYTES / sent,
    }
    head_count, replicas = (max(2, math.ceil(rate / min(limits.values()))) for limits in (heads, of_shards))
    loads = {name: rate / limit / head_count for name, limit in heads.items()}
    loads |= {name: rate / limit / replicas for name, limit in of_shards.items()}
    lone = seconds.lone[whole.encoder].of(work) + shard_lone + beside + seconds.hop
    return (
        f"{shards} x {replicas}, {shard_bytes / 1e9:.1f} | {head_count}, {head_bytes / 1e9:.1f} "
        f"| {shards * replicas + head_count} | {1000 * lone:.1f} | {max(loads, key=loads.__getitem__)}"
    )


def _beside(shards: int, costs: Sequence[Cost]) -> float:
    """Seconds of the hop and of merging; more shards than were measured take as much each as the most that were."""
    counts = [cost.shards for cost in costs]
    measured = float(np.interp(shards, counts, [cost.hop + cost.merging for cost in costs])) / 1000
    return measured * max(1.0, shards / max(counts))


def _shard(whole: Workload, count: int, deferred: bool) -> tuple[float, float, float]:
    """Of one of so many shards: bytes, and seconds of a search for a query alone and of one of a batch, encoded too."""
    constants = load()
    part = replace(whole, labels=math.ceil(whole.labels / count))
    work = work_of(part, constants.files)
    speed, seconds = speed_of(part, work, constants, on_gpu=False), constants.seconds
    batch = speed.processor - seconds.http - seconds.batcher
    tables = by_group(file_bytes(part, constants.files))["method"]
    if deferred:
        return _process_bytes(work) + tables, speed.search, batch
    return _process_bytes({**work, **NO_ENCODER}) + tables, speed.search, batch - seconds.batch[part.encoder].of(work)


def _process_bytes(work: Work) -> float:
    memory = load().memory
    return memory.model.of(work) + memory.model_code


if __name__ == "__main__":
    main()
