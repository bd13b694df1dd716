"""How long a query takes, and how many a pod answers.

A query alone tells the latency, one of many in a batch the throughput.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from service.planning.constants import Constants, GpuPoint, Law, Work
from service.planning.footprint import is_resident
from service.planning.work import SEARCHED_ENTRIES
from service.planning.workload import Workload

BATCH, LONE = "batch", "lone"
RERANK = "rerank"


@dataclass(frozen=True)
class Speed:
    """Seconds.

    Attributes:
        encode: of a query alone; on a GPU that finds labels as well, of the whole answer.
        search: what follows: labels, and their re-ranking.
        hop: what HTTP and two processes take of it.
        processor: of each query under load, on processors: the model's, and that of HTTP.
        http: the part of it that the one process that speaks HTTP takes.
        gpu: of each query under load, on the GPU; 0 without one.
    """

    encode: float
    search: float
    hop: float
    processor: float
    http: float
    gpu: float

    @property
    def whole(self) -> float:
        """Of a query alone, over HTTP."""
        return self.encode + self.search + self.hop


def speed_of(workload: Workload, work: Work, constants: Constants, *, on_gpu: bool) -> Speed:
    """What the model's work takes."""
    seconds = constants.seconds
    lone, batch = (
        {stage: law.of(work) for stage, law in _laws(workload, work, laws)} for laws in (seconds.lone, seconds.batch)
    )
    beside = seconds.batcher + seconds.http
    encode, gpu, encode_batch = lone.pop(workload.encoder), 0.0, batch.pop(workload.encoder)
    if on_gpu:
        point = constants.gpu.mach if workload.method == "mach" else constants.gpu.search
        scale = gpu_work(workload) / point.work
        encode, gpu, encode_batch = _gpu_seconds(point, scale), _gpu_seconds(point, scale, in_batch=True), 0.0
        if is_resident(workload):
            lone, batch = _reranked(lone), _reranked(batch)
    return Speed(
        encode=encode,
        search=sum(lone.values()),
        hop=seconds.hop,
        processor=encode_batch + sum(batch.values()) + beside,
        http=seconds.http,
        gpu=gpu,
    )


def laws_of(workload: Workload, work: Work, constants: Constants) -> dict[str, Law]:
    """The laws that a lone query's time follows, by stage."""
    return dict(_laws(workload, work, constants.seconds.lone))


def gpu_work(workload: Workload) -> int:
    """What a GPU sums or multiplies for a query."""
    return workload.labels * (workload.repetitions or workload.dimension)


def _laws(workload: Workload, work: Work, laws: Mapping[str, Law]) -> Iterator[tuple[str, Law]]:
    yield workload.encoder, laws[workload.encoder]
    yield _search_law(workload, work, laws)
    if workload.rerank_weights:
        yield RERANK, laws[RERANK]


def _search_law(workload: Workload, work: Work, laws: Mapping[str, Law]) -> tuple[str, Law]:
    """MACH scores all labels where these are few or a search along lists would take longer, as its decoder does."""
    match workload.method:
        case "mach":
            every, some = "mach-all", "mach-100" if workload.rerank_weights else "mach"
            few = work["entries"] < SEARCHED_ENTRIES or laws[every].of(work) < laws[some].of(work)
            stage = every if few else some
        case "declare":
            stage = "declare" if workload.by_factors else "flat"
        case "unidec" | "ova":
            assert workload.index is not None
            stage = workload.index
    return stage, laws[stage]


def _reranked(stages: Mapping[str, float]) -> dict[str, float]:
    return {stage: seconds for stage, seconds in stages.items() if stage == RERANK}


def _gpu_seconds(point: GpuPoint, scale: float, *, in_batch: bool = False) -> float:
    """Of a smaller model no less than was measured: a start of kernels takes as long."""
    milliseconds = point.batch_ms / point.batch_rows if in_batch else point.lone_ms
    return max(1.0, scale) * milliseconds / 1000
