"""A plan as lines to read, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict

from service.planning.capacity import Capacity
from service.planning.constants import Constants
from service.planning.footprint import is_resident

UNITS = (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3))


def text_of(plan: Capacity, constants: Constants) -> str:
    """Lines to read."""
    return "".join(f"{line}\n" for line in _lines(plan, constants))


def json_of(plan: Capacity, constants: Constants) -> str:
    """One object: everything in the plan, in bytes and seconds, and where constants come from."""
    footprint, speed = plan.footprint, plan.speed
    content = asdict(plan) | {
        "disk_bytes": sum(plan.files.values()),
        "memory_bytes": footprint.total,
        "latency_seconds": speed.whole,
        "measured": (constants.source if plan.pod.device == "cpu" else constants.gpu.source).model_dump(),
    }
    return json.dumps(content, indent=1) + "\n"


def _lines(plan: Capacity, constants: Constants) -> Iterator[str]:
    yield _model(plan)
    yield f"  disk       {shown(sum(plan.files.values()))}: {_parts(plan.files)}"
    yield from _memory(plan)
    yield from _latency(plan)
    yield (
        f"  pods       {plan.pods:,} for {plan.queries_per_second:,g} queries a second: "
        f"{plan.pod_queries_per_second:,.4g} each at {plan.pod.utilisation:.0%} of "
        f"{plan.pod.processors:g} processors{' and a GPU' if plan.speed.gpu else ''}"
    )
    yield f"  bound by   {plan.bound_by}"
    yield from _machine(plan)
    yield from (f"  beyond     {sentence}" for sentence in plan.beyond)
    source = constants.source if plan.pod.device == "cpu" else constants.gpu.source
    yield f"  measured   {source.machine}, {source.date}, by {source.command}"


def _model(plan: Capacity) -> str:
    work = plan.workload
    sizes = [f"{work.labels:,} labels", f"{work.encoder} encoder of {shown(plan.files['encoder'])}"]
    match work.method:
        case "mach":
            sizes += [f"{work.repetitions} repetitions of {work.buckets:,} buckets", f"hidden layer {work.dimension:,}"]
        case "declare":
            kept = "factors" if work.by_factors else "rows"
            sizes += [f"{work.rows:,} training rows of {work.row_labels:g} labels", f"rank {work.dimension}, by {kept}"]
        case "unidec" | "ova":
            sizes += [f"{work.dimension:,} dimensions", f"{work.index} index"]
            sizes += [f"{work.leading} leading coordinates"] if work.leading else []
    sizes += [f"re-ranked by {work.rerank_weights:g} words a label"] if work.rerank_weights else []
    return f"{work.method}: {', '.join(sizes)}"


def _memory(plan: Capacity) -> Iterator[str]:
    parts = plan.footprint
    model = {"private": parts.model_private, "mapped": parts.model_mapped, "libraries": parts.model_code}
    http = {"private": parts.http_private, "libraries": parts.http_code}
    yield f"  memory     {shown(parts.total)} of {shown(plan.pod.memory_bytes)} a pod"
    yield f"    model    {shown(sum(model.values()))}: {_parts(model)}"
    yield f"    HTTP     {shown(sum(http.values()))}: {_parts(http)}"
    if parts.gpu:
        yield f"    GPU      {shown(parts.gpu)}"


def _latency(plan: Capacity) -> Iterator[str]:
    speed = plan.speed
    encode = "encode and search" if speed.gpu and is_resident(plan.workload) else "encode"
    stages = {encode: speed.encode, "search": speed.search, "HTTP": speed.hop}
    listed = ", ".join(f"{name} {1000 * seconds:.3g}" for name, seconds in stages.items() if seconds)
    yield f"  latency    p50 {1000 * speed.whole:.3g} ms for a query alone: {listed}"


def _machine(plan: Capacity) -> Iterator[str]:
    if not plan.faults:
        yield "  machine    one holds it"
        return
    yield from (f"  machine    one does not hold it: {fault}" for fault in plan.faults.values())
    if plan.shards is None:
        yield "  shards     no number of parts of the labels would fit machines of this size"
        return
    yield (
        f"  shards     {plan.shards:,} machines with a part of the labels each would hold it: "
        "`xmc-export shard` and `xmc-serve run --ray`"
    )


def shown(size: float) -> str:
    """Bytes in the largest unit that they fill."""
    for unit, factor in UNITS:
        if size >= factor:
            return f"{size / factor:,.3g} {unit}" if size < 1000 * factor else f"{size / factor:,.0f} {unit}"
    return f"{size:,.0f} B"


def _parts(sizes: dict[str, int]) -> str:
    return ", ".join(f"{name} {shown(size)}" for name, size in sizes.items())
