"""Plans beside what bundles take that no constant was fitted to.

Bytes and times are held against the plan as they are. Times are told once more as a share of another bundle's, which
constants were fitted to, and which is measured in turn with the first: what slows both down is in neither.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from service.planning.constants import Constants, load
from service.planning.footprint import footprint_of
from service.planning.sizes import by_group, file_bytes
from service.planning.speed import speed_of
from service.planning.work import work_of
from service.planning.workload import Workload
from tests.benchmarks.capacity.bundles import Case, write_case
from tests.benchmarks.capacity.cases import FITTED, REFERENCES, SERVED
from tests.benchmarks.capacity.measure import RERANKED_K, K, memory_of, opened, search_times, served, times_of
from tests.benchmarks.capacity.pace import Pace
from tests.benchmarks.capacity.sources import Sources

ALLOWED = 0.15


class Pair(NamedTuple):
    """A figure.

    Attributes:
        name: with its unit.
        planned: by the constants.
        found: measured.
        share_off: as ``off``, of both as shares of the reference's; None for bytes.
    """

    name: str
    planned: float
    found: float
    share_off: float | None = None

    @property
    def off(self) -> float:
        """What was planned, beyond what was found."""
        return self.planned / self.found - 1


def check(cases: Mapping[str, Workload], sources: Sources, folder: Path) -> None:
    """Print a table of plans and measurements, and how many are near each other."""
    constants, pairs = load(), list[Pair]()
    print(
        "| bundle | figure | planned | measured | off | off as a share of another bundle's |\n|---|---|---|---|---|---|"
    )
    for name, workload in cases.items():
        case, beside = write_case(name, workload, sources, folder), REFERENCES[name]
        reference = write_case(beside, FITTED[beside], sources, folder)
        for pair in (*_bytes(case, constants), *_times((case, reference), sources, constants)):
            pairs.append(pair)
            share = "" if pair.share_off is None else f"{pair.share_off:+.1%} of {beside}"
            print(
                f"| {name} | {pair.name} | {pair.planned:,.4g} | {pair.found:,.4g} | {pair.off:+.1%} | {share} |",
                flush=True,
            )
        for done in (case, reference):
            shutil.rmtree(done.path)
    for figure in dict.fromkeys(pair.name for pair in pairs):
        own = [pair for pair in pairs if pair.name == figure]
        print(f"{figure}: {_near([pair.off for pair in own])}", end="")
        shares = [pair.share_off for pair in own if pair.share_off is not None]
        print(f"; as shares, {_near(shares)}" if shares else "")


def _near(offs: Sequence[float]) -> str:
    near = sum(abs(off) <= ALLOWED for off in offs)
    return f"{near} of {len(offs)} within {ALLOWED:.0%}, {max(map(abs, offs)):.1%} off at most"


def _bytes(case: Case, constants: Constants) -> Iterator[Pair]:
    workload = case.workload
    groups = by_group(file_bytes(workload, constants.files))
    sizes = {file.name: file.stat().st_size for file in case.path.iterdir() if file.name != "manifest.json"}
    for group, size in by_group(sizes).items():
        yield Pair(f"{group} MB", groups[group] / 1e6, size / 1e6)
    footprint = footprint_of(workload, work_of(workload, constants.files), constants, on_gpu=False)
    memory = memory_of(case.path)
    yield Pair("private MB", footprint.model_private / 1e6, memory.private / 1e6)
    yield Pair("mapped MB", footprint.model_mapped / 1e6, memory.mapped / 1e6)


def _times(cases: tuple[Case, Case], sources: Sources, constants: Constants) -> Iterator[Pair]:
    """Of the first, and as shares of the second's."""
    planned = [_planned(case.workload, constants) for case in cases]
    found = _found(cases, sources, Pace(constants.pace, constants.reading))
    for name, seconds in found[0].items():
        share_off = (planned[0][name] / planned[1][name]) / (seconds / found[1][name]) - 1
        yield Pair(name, 1000 * planned[0][name], 1000 * seconds, share_off)


def _planned(workload: Workload, constants: Constants) -> dict[str, float]:
    speed = speed_of(workload, work_of(workload, constants.files), constants, on_gpu=False)
    return {
        "encode ms": speed.encode,
        "search ms": speed.search,
        "batch ms": speed.processor - constants.seconds.http - constants.seconds.batcher,
        "HTTP ms": speed.whole,
        "processors ms": speed.processor,
    }


def _found(cases: tuple[Case, Case], sources: Sources, pace: Pace) -> list[dict[str, float]]:
    workload, engines = cases[0].workload, [opened(case.path) for case in cases]
    times = times_of(engines, sources.queries, RERANKED_K if workload.rerank_weights else K, pace)
    searches = [(one.lone_search, one.batch_search) for one in times]
    if workload.index is not None and not workload.rerank_weights:
        vectors = [sources.queries_of(case.workload.dimension) for case in cases]
        searches = search_times(engines, vectors, pace)
    found = [
        {"encode ms": one.lone_encode, "search ms": search, "batch ms": one.batch_encode + batch_search}
        for one, (search, batch_search) in zip(times, searches, strict=True)
    ]
    if cases[0].name in SERVED:
        for one, case in zip(found, cases, strict=True):
            over_http = served(case.path, sources.queries, case.path.parent / "queries.txt", pace)
            one |= {"HTTP ms": over_http.lone, "processors ms": over_http.http + over_http.model}
    return found
