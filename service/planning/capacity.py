"""The plan: files, memory, latency, pods, and what of it nobody has measured."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from service.planning.constants import Constants
from service.planning.encoders import encoder_bytes
from service.planning.footprint import Footprint, footprint_of, is_resident
from service.planning.sizes import by_group, file_bytes
from service.planning.speed import Speed, gpu_work, laws_of, point_of, speed_of
from service.planning.work import NAMES, work_of
from service.planning.workload import Wishes, Workload, resolved

# Of a protobuf message, which `encoder.onnx` is.
MOST_ENCODER_BYTES = 2**31 - 1
# Of a pod that may end at any time.
LEAST_PODS = 2
MOST_SHARDS = 1 << 20

Device = Literal["cpu", "cuda"]


@dataclass(frozen=True)
class Pod:
    """What a pod may use, and of that what it shall.

    Attributes:
        device: where the model runs.
        processors: of the pod.
        memory_bytes: that it may have.
        utilisation: share of the processors, and of the GPU, that the load may take: what is left is for bursts, for
            a pod that is away, and for latencies that do not wait in a queue.
    """

    device: Device
    processors: float
    memory_bytes: int
    utilisation: float


@dataclass(frozen=True)
class Capacity:
    """What is needed.

    Attributes:
        workload: that it is of.
        pod: that serves it.
        queries_per_second: that are wanted.
        files: bytes on disk by group.
        footprint: of memory.
        speed: of a query.
        pod_queries_per_second: that a pod answers.
        pods: that answer them all.
        bound_by: what decides the number of pods, or that there can be none.
        faults: why one machine cannot serve it, by what it lacks; none where it can.
        shards: so many machines that have a part of the labels each; 1 where one serves all; None: no number will do.
        beyond: what is larger than anything that was measured.
    """

    workload: Workload
    pod: Pod
    queries_per_second: float
    files: dict[str, int]
    footprint: Footprint
    speed: Speed
    pod_queries_per_second: float
    pods: int
    bound_by: str
    faults: dict[str, str]
    shards: int | None
    beyond: tuple[str, ...]


def capacity_of(wishes: Wishes, queries_per_second: float, pod: Pod, constants: Constants) -> Capacity:
    """Plan a service.

    Raises:
        SettingsError: a size cannot be, see `resolved`.
    """
    workload = resolved(wishes)
    on_gpu = pod.device == "cuda"
    work = work_of(workload, constants.files)
    footprint = footprint_of(workload, work, constants, on_gpu=on_gpu)
    speed = speed_of(workload, work, constants, on_gpu=on_gpu)
    limits = _limits(speed, pod)
    slowest = min(limits, key=lambda name: limits[name])
    needed = math.ceil(queries_per_second / limits[slowest])
    faults = dict(_faults(workload, footprint, pod, constants))
    bound_by = slowest if needed > LEAST_PODS else f"availability: {LEAST_PODS} pods at least"
    return Capacity(
        workload=workload,
        pod=pod,
        queries_per_second=queries_per_second,
        files=by_group(file_bytes(workload, constants.files)),
        footprint=footprint,
        speed=speed,
        pod_queries_per_second=limits[slowest],
        pods=max(LEAST_PODS, needed),
        bound_by=", ".join(faults) or bound_by,
        faults=faults,
        shards=_shards(wishes, pod, constants) if faults else 1,
        beyond=tuple(_beyond(workload, constants, pod)),
    )


def _limits(speed: Speed, pod: Pod) -> dict[str, float]:
    """Queries a second, by what a pod cannot exceed."""
    limits = {
        "processors": pod.utilisation * pod.processors / speed.processor,
        "the process that speaks HTTP": pod.utilisation * min(1.0, pod.processors) / speed.http,
    }
    if speed.gpu:
        limits["the GPU"] = pod.utilisation / speed.gpu
    return limits


def _faults(workload: Workload, footprint: Footprint, pod: Pod, constants: Constants) -> Iterator[tuple[str, str]]:
    """What a machine lacks, and a sentence."""
    if footprint.total > pod.memory_bytes:
        yield "memory", f"expected at most {pod.memory_bytes:,} bytes of memory (--memory), found {footprint.total:,}"
    if (size := encoder_bytes(workload)) > MOST_ENCODER_BYTES:
        limit = f"expected at most {MOST_ENCODER_BYTES:,} bytes of encoder.onnx, found {size:,}"
        yield "encoder.onnx", f"{limit}; a smaller --dim, fewer --buckets or --repetitions make it fit"
    if footprint.gpu > constants.gpu.memory_bytes:
        limit = f"expected at most {constants.gpu.memory_bytes:,.0f} bytes on the GPU"
        yield "memory of the GPU", f"{limit}, found {footprint.gpu:,}"


def _shards(wishes: Wishes, pod: Pod, constants: Constants) -> int | None:
    """The fewest equal parts of the labels that fit a machine each; sizes are derived anew from the smaller number."""

    def fits(parts: int) -> bool:
        labels = math.ceil(wishes.labels / parts)
        rows = None if wishes.rows is None else math.ceil(wishes.rows / parts)
        workload = resolved(replace(wishes, labels=labels, rows=rows))
        work = work_of(workload, constants.files)
        footprint = footprint_of(workload, work, constants, on_gpu=pod.device == "cuda")
        return not dict(_faults(workload, footprint, pod, constants))

    low, high = 1, 2
    while not fits(high):
        low, high = high, 2 * high
        if high > min(MOST_SHARDS, wishes.labels):
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high


def _beyond(workload: Workload, constants: Constants, pod: Pod) -> Iterator[str]:
    """Amounts of work that no measurement reached."""
    work, on_gpu = work_of(workload, constants.files), pod.device == "cuda"
    laws = {"memory": constants.memory.model} | laws_of(workload, work, constants, on_gpu=on_gpu)
    for stage, law in laws.items():
        for name, amount in law.beyond(work).items():
            yield f"{stage}: {amount:.3g} {NAMES[name]}, measured up to {law.measured[name]:.3g}"
    if on_gpu and is_resident(workload):
        point = point_of(workload, constants)
        if (amount := gpu_work(workload)) > point.work:
            yield f"GPU: {amount:.3g} numbers of labels, measured at {point.work:.3g}"
    if workload.encoder_bytes is not None:
        yield "encoder: its time is that of the planned sizes, as often as its bytes are more"
