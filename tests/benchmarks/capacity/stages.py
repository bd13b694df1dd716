"""Each stage of a case's queries, as a point of the law of its times."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from service.engine import Engine
from service.planning.constants import Files, Law, Work
from service.planning.speed import LEADING, RERANK, VOTE
from service.planning.work import SEARCHED_ENTRIES, work_of
from tests.benchmarks.capacity.bundles import Case
from tests.benchmarks.capacity.laws import fitted
from tests.benchmarks.capacity.measure import RERANKED_K, K, Times, rerank_times, search_times, times_of
from tests.benchmarks.capacity.pace import Pace
from tests.benchmarks.capacity.sources import Sources

# What the time of each stage is a law of.
WORKS: dict[str, tuple[str, ...]] = {
    "bag": ("dense_weights", "outputs", "cold", "scattered"),
    "transformer": ("token_weights",),
    "mach": ("steps",),
    "mach-100": ("steps",),
    "mach-all": ("entries", "outputs"),
    "flat": ("numbers", "far_numbers", "labels"),
    LEADING: ("leading_numbers", "labels"),
    "ivf": ("root_codes", "labels"),
    "hnsw": ("root_codes", "labels"),
    VOTE: (),
    "declare": ("factors", "votes"),
    RERANK: ("labels", "word_weights"),
}
# Stages that were timed together with another one, whose law is subtracted.
BESIDE = {VOTE: "flat"}
# MACH looks for no more answers than 128 along lists.
ALL_K = 129
TOKENS = (8, 16, 48)


class StagePoint(NamedTuple):
    """Seconds of a query alone, and of one in a batch, for some work."""

    stage: str
    work: Work
    lone: float
    batch: float


def points_of(case: Case, engine: Engine, sources: Sources, files: Files, pace: Pace) -> Iterator[StagePoint]:
    """All that a case tells, at the usual pace."""
    workload, work, queries = case.workload, work_of(case.workload, files), sources.queries
    if workload.rerank_weights:
        yield StagePoint(RERANK, work, *rerank_times(case.path, engine, queries, pace))
        return
    if workload.encoder == "transformer":
        for tokens in TOKENS:
            (times,) = times_of([engine], queries, K, pace, tokens)
            asked = work_of(replace(workload, tokens=tokens), files)
            yield StagePoint("transformer", asked, times.lone_encode, times.batch_encode)
        return
    (times,) = times_of([engine], queries, K, pace)
    yield StagePoint("bag", work, times.lone_encode, times.batch_encode)
    match workload.method:
        case "mach" if work["entries"] >= SEARCHED_ENTRIES:
            yield _search("mach", work, times)
            for stage, k in (("mach-100", RERANKED_K), ("mach-all", ALL_K)):
                yield _search(stage, work, *times_of([engine], queries, k, pace))
        case "mach":
            yield _search("mach-all", work, times)
        case "declare":
            yield _search("declare" if workload.by_factors else VOTE, work, times)
        case _:
            (seconds,) = search_times([engine], [sources.queries_of(workload.dimension)], pace)
            yield StagePoint(LEADING if workload.leading else str(workload.index), work, *seconds)


def laws_of(points: Sequence[StagePoint]) -> tuple[dict[str, Law], dict[str, Law]]:
    """Laws of lone queries and of those in batches, by stage."""
    lone, batch = dict[str, Law](), dict[str, Law]()
    for stage, names in WORKS.items():
        own = [point for point in points if point.stage == stage]
        for laws, taken in (
            (lone, [point.lone for point in own]),
            (batch, [point.batch for point in own]),
        ):
            if stage in BESIDE:
                taken = [
                    seconds - laws[BESIDE[stage]].of(point.work) for point, seconds in zip(own, taken, strict=True)
                ]
            laws[stage] = fitted(names, [(point.work, seconds) for point, seconds in zip(own, taken, strict=True)])
    return lone, batch


def _search(stage: str, work: Work, times: Times) -> StagePoint:
    return StagePoint(stage, work, times.lone_search, times.batch_search)
