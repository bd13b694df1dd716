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

RERANK, VOTE, LEADING, ON_GPU = "rerank", "vote", "leading", "GPU"


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
        {stage: law.of(work) for stage, law in _laws(workload, work, laws, on_gpu=on_gpu)}
        for laws in (seconds.lone, seconds.batch)
    )
    gpu = 0.0
    if on_gpu:
        point = point_of(workload, constants)
        # Of a smaller model no less than was measured: to start its kernels takes as long.
        scale = max(1.0, gpu_work(workload) / point.work) if is_resident(workload) else 1.0
        lone[ON_GPU] = scale * point.lone_ms / 1000
        gpu = scale * point.batch_ms / point.batch_rows / 1000
    encode = lone.pop(ON_GPU if on_gpu else workload.encoder)
    return Speed(
        encode=encode,
        search=sum(lone.values()),
        hop=seconds.hop,
        processor=sum(batch.values()) + seconds.batcher + seconds.http,
        http=seconds.http,
        gpu=gpu,
    )


def laws_of(workload: Workload, work: Work, constants: Constants, *, on_gpu: bool) -> dict[str, Law]:
    """The laws that the time of a lone query on processors follows, by stage."""
    return dict(_laws(workload, work, constants.seconds.lone, on_gpu=on_gpu))


def point_of(workload: Workload, constants: Constants) -> GpuPoint:
    """What was measured on a GPU and is most like it."""
    return constants.gpu.mach if workload.method == "mach" else constants.gpu.search


def gpu_work(workload: Workload) -> int:
    """What a GPU sums or multiplies for a query."""
    return workload.labels * (workload.repetitions or workload.dimension)


def _laws(workload: Workload, work: Work, laws: Mapping[str, Law], *, on_gpu: bool) -> Iterator[tuple[str, Law]]:
    if not on_gpu:
        yield workload.encoder, laws[workload.encoder]
    if not (on_gpu and is_resident(workload)):
        stage = _search_stage(workload, work, laws)
        yield stage, laws[stage]
        if workload.method == "declare" and stage == "flat":
            yield VOTE, laws[VOTE]
    if workload.rerank_weights:
        yield RERANK, laws[RERANK]


def _search_stage(workload: Workload, work: Work, laws: Mapping[str, Law]) -> str:
    """MACH scores all labels where these are few or a search along lists would take longer, as its decoder does."""
    match workload.method:
        case "mach":
            every, some = "mach-all", "mach-100" if workload.rerank_weights else "mach"
            few = work["entries"] < SEARCHED_ENTRIES or laws[every].of(work) < laws[some].of(work)
            return every if few else some
        case "declare":
            return "declare" if workload.by_factors else "flat"
        case "unidec" | "ova":
            assert workload.index is not None
            return LEADING if workload.leading else workload.index
