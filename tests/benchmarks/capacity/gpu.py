"""Figures of an H100, printed by `python -m tests.benchmarks.gpu` on 2026-11-26: no run of this benchmark has a GPU.

MiniLM in fp16 and 1,300,000 labels of 512 dimensions, searched exactly, and MACH with 3,000,000 labels, R = 32 and
B = 10,000; of whole answers, alone and in batches of 128.
"""

from __future__ import annotations

from service.planning.constants import Gpu, GpuPoint, Source

ROWS = 128
GPU = Gpu(
    source=Source(machine="NVIDIA H100 (80 GB)", date="2026-11-26", command="python -m tests.benchmarks.gpu"),
    memory_bytes=80e9,
    mach=GpuPoint(work=3_000_000 * 32, lone_ms=1.4, batch_ms=72.9, batch_rows=ROWS),
    search=GpuPoint(work=1_300_000 * 512, lone_ms=3.3, batch_ms=5.2, batch_rows=ROWS),
)
