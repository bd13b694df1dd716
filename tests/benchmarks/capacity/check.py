"""Plans beside what bundles take that no constant was fitted to."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from service.planning.constants import Constants, load
from service.planning.footprint import footprint_of
from service.planning.sizes import by_group, file_bytes
from service.planning.speed import speed_of
from service.planning.work import work_of
from service.planning.workload import Workload
from tests.benchmarks.capacity.bundles import Case, write_case
from tests.benchmarks.capacity.cases import SERVED
from tests.benchmarks.capacity.measure import RERANKED_K, K, memory_of, opened, search_times, served, times_of
from tests.benchmarks.capacity.pace import Pace
from tests.benchmarks.capacity.sources import Sources

# Name, planned, measured.
Pair = tuple[str, float, float]
ALLOWED = 0.15


def check(cases: Mapping[str, Workload], sources: Sources, folder: Path) -> None:
    """Print a table of plans and measurements, and how many are near each other."""
    constants, offs = load(), dict[str, list[float]]()
    print("| bundle | figure | planned | measured | off |\n|---|---|---|---|---|")
    for name, workload in cases.items():
        case = write_case(name, workload, sources, folder)
        for figure, planned, found in _pairs(case, sources, constants):
            offs.setdefault(figure, []).append(planned / found - 1)
            print(f"| {name} | {figure} | {planned:,.4g} | {found:,.4g} | {planned / found - 1:+.1%} |", flush=True)
        shutil.rmtree(case.path)
    for figure, off in offs.items():
        near = sum(abs(one) <= ALLOWED for one in off)
        print(f"{figure}: {near} of {len(off)} within {ALLOWED:.0%}, {max(map(abs, off)):.1%} off at most")


def _pairs(case: Case, sources: Sources, constants: Constants) -> Iterator[Pair]:
    workload, queries, pace = case.workload, sources.queries, Pace(constants.pace, constants.reading)
    work = work_of(workload, constants.files)
    groups = by_group(file_bytes(workload, constants.files))
    sizes = {file.name: file.stat().st_size for file in case.path.iterdir() if file.name != "manifest.json"}
    for group, size in by_group(sizes).items():
        yield f"{group} MB", groups[group] / 1e6, size / 1e6
    footprint = footprint_of(workload, work, constants, on_gpu=False)
    memory = memory_of(case.path)
    yield "private MB", footprint.model_private / 1e6, memory.private / 1e6
    yield "mapped MB", footprint.model_mapped / 1e6, memory.mapped / 1e6
    speed = speed_of(workload, work, constants, on_gpu=False)
    engine = opened(case.path)
    times = times_of(engine, queries, RERANKED_K if workload.rerank_weights else K, pace)
    search, batch_search = times.lone_search, times.batch_search
    if workload.index is not None and not workload.rerank_weights:
        search, batch_search = search_times(engine, sources.queries_of(workload.dimension), pace)
    yield "encode ms", 1000 * speed.encode, 1000 * times.lone_encode
    yield "search ms", 1000 * speed.search, 1000 * search
    beside = constants.seconds.http + constants.seconds.batcher
    yield "batch ms", 1000 * (speed.processor - beside), 1000 * (times.batch_encode + batch_search)
    if case.name in SERVED:
        found = served(case.path, queries, case.path.parent / "queries.txt", pace)
        yield "HTTP ms", 1000 * speed.whole, 1000 * found.lone
        yield "processors ms", 1000 * speed.processor, 1000 * (found.http + found.model)
