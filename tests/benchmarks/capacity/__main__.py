"""Measures what `xmc-serve plan` reckons with, and holds its plans against bundles.

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python -m tests.benchmarks.capacity --cache build/capacity
    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python -m tests.benchmarks.capacity --cache build/capacity --check

The first writes `service/planning/constants.json`: models of the embedded sample are trained for one epoch, bundles of
several sizes made of them, and each is opened in a process as a server has, and timed in an engine on one thread. The
second makes bundles of other sizes and prints what was planned beside what they take. Figures of a GPU are kept: they
come from `python -m tests.benchmarks.gpu`, as the service's README has them.

Times of stages are those of the processor that computes them, at one pace of it and of memory: see `pace`.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import json
import shutil
import time
from pathlib import Path

import numpy as np

from model_export.axes import directions_with
from model_export.faiss_index import KEPT_SQUARES
from service.bundle import layout
from service.bundle.searching import ApproximateType
from service.planning.constants import FILE, Constants, Files, Memory, Seconds, Source
from service.planning.footprint import mapped_bytes
from service.planning.work import work_of
from service.planning.workload import Workload
from service.processors import available_processors
from tests.benchmarks.capacity.bundles import write_case
from tests.benchmarks.capacity.cases import FITTED, HELD_OUT, SMALL
from tests.benchmarks.capacity.check import check
from tests.benchmarks.capacity.gpu import GPU
from tests.benchmarks.capacity.laws import fitted
from tests.benchmarks.capacity.measure import BATCH_ROWS, K, memory_of, opened, served, times_of
from tests.benchmarks.capacity.pace import Pace
from tests.benchmarks.capacity.resident import Resident
from tests.benchmarks.capacity.sources import Sources
from tests.benchmarks.capacity.stages import StagePoint, laws_of, points_of

DIMENSION, PROJECTED = 256, 50_000
COMMAND = "python -m tests.benchmarks.capacity"
OF_HTTP = "flat-10k"
# What a process's private memory is a law of.
HELD = ("encoder_bytes", "body_weights", "held_bytes", "outputs")


def main() -> None:
    """Measure or check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, metavar="DIR", help="of trained models, and of bundles")
    parser.add_argument("--check", action="store_true", help="hold plans against bundles of other sizes")
    arguments = parser.parse_args()
    sources, folder = Sources(arguments.cache), arguments.cache / "bundles"
    shutil.rmtree(folder, ignore_errors=True)
    if arguments.check:
        check(HELD_OUT, sources, folder)
        return
    FILE.write_text(json.dumps(_measure(sources, folder).model_dump(), indent=1) + "\n", encoding="utf-8")


def _measure(sources: Sources, folder: Path) -> Constants:
    # What is known before anything was measured; of indexes, what is mapped is not.
    files = Files(
        token_bytes=sources.tokenizer_file.stat().st_size / sources.vocabulary,
        projection_share=projection_share(sources),
        mapped_index_shares={"ivf": 0.0, "hnsw": 0.0},
    )
    pace = Pace.usual()
    print(f"pace: expected {pace.found()} us", flush=True)
    points: list[StagePoint] = []
    memory: dict[str, tuple[Workload, Resident]] = {}
    shares: dict[ApproximateType, float] = {}
    for name, workload in FITTED.items():
        started = time.perf_counter()
        case = write_case(name, workload, sources, folder)
        memory[name] = case.workload, memory_of(case.path)
        if workload.index in ("ivf", "hnsw"):
            mapped = memory[name][1].mapped - mapped_bytes(case.workload, files)
            shares[workload.index] = min(1.0, max(0.0, mapped / (case.path / layout.LABEL_INDEX).stat().st_size))
        for point in points_of(case, opened(case.path), sources, files, pace):
            points.append(point)
            print(
                f"{name}: {point.stage}, ms alone {1000 * point.lone:.3f}, in a batch {1000 * point.batch:.3f}",
                flush=True,
            )
        sizes = ", ".join(f"{part} {size / 1e6:.1f}" for part, size in memory[name][1]._asdict().items())
        print(f"{name}: MB {sizes}; {time.perf_counter() - started:.0f} s", flush=True)
        if name == OF_HTTP:
            http = served(case.path, sources.queries, folder / "queries.txt", pace)
            (engine,) = times_of([opened(case.path)], sources.queries, K, pace)
            print(http, flush=True)
        shutil.rmtree(case.path)
        gc.collect()
    for name, workload in SMALL.items():
        memory[name] = workload, memory_of(write_case(name, workload, sources, folder).path)
    files = files.model_copy(update={"mapped_index_shares": shares})
    private = [(work_of(workload, files), float(found.private)) for workload, found in memory.values()]
    lone, batch = laws_of(points)
    return Constants(
        source=Source(machine=_machine(), date=datetime.date.today().isoformat(), command=COMMAND),
        pace=pace.seconds,
        reading=pace.reading,
        batch_rows=BATCH_ROWS,
        files=files,
        memory=Memory(
            model=fitted(HELD, private),
            model_code=float(np.median([found.code for _, found in memory.values()])),
            http=float(http.memory.private),
            http_code=float(http.memory.code),
        ),
        seconds=Seconds(
            lone=lone,
            batch=batch,
            http=http.http,
            batcher=http.model - engine.batch_encode - engine.batch_search,
            hop=http.hop,
        ),
        gpu=GPU,
    )


def projection_share(sources: Sources) -> float:
    """Of label vectors, how many directions hold as much of them as an index of candidates keeps."""
    vectors_LD = sources.label_vectors(PROJECTED, DIMENSION)
    return len(directions_with(KEPT_SQUARES, vectors_LD)) / DIMENSION


def _machine() -> str:
    names = (
        line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "name" in line
    )
    return f"{next(names)}, {available_processors()} processors that others used too"


if __name__ == "__main__":
    main()
