"""The sizes that are measured: those that laws are fitted to, and others that they are held against."""

from __future__ import annotations

from service.planning.workload import Wishes, Workload, resolved

# Tokens that the sample's tokenizer knows.
VOCABULARY = 30_751
MACH = {"repetitions": 16, "buckets": 8192, "vocabulary": VOCABULARY}


def _mach(labels: int, dimension: int = 64, **more: int) -> Workload:
    return resolved(Wishes("mach", labels, **{"dimension": dimension} | MACH | more))


def _search(labels: int, dimension: int, index: str = "flat", **more: float) -> Workload:
    sizes = {"dimension": dimension, "index": index, "vocabulary": VOCABULARY} | more
    return resolved(Wishes("unidec", labels, **sizes))  # type: ignore[arg-type]


def _declare(labels: int, rows: int) -> Workload:
    return resolved(Wishes("declare", labels, rows=rows, dimension=200, vocabulary=VOCABULARY))


FITTED: dict[str, Workload] = {
    "mach-10k": _mach(10_000),
    "mach-100k": _mach(100_000),
    "mach-300k": _mach(300_000),
    "mach-1m": _mach(1_000_000),
    "mach-wide": _mach(10_000, 500, buckets=1024),
    "mach-wider": _mach(10_000, 1024, buckets=2048),
    "flat-10k": _search(10_000, 128),
    "flat-50k": _search(50_000, 256),
    "flat-100k": _search(100_000, 128),
    "flat-300k": _search(300_000, 384),
    "flat-1m": _search(1_000_000, 256),
    "leading-30k": _search(30_000, 256, leading=128),
    "leading-60k": _search(60_000, 256, leading=128),
    "leading-200k": _search(200_000, 256, leading=128),
    "ivf-30k": _search(30_000, 256, "ivf"),
    "ivf-80k": _search(80_000, 256, "ivf"),
    "ivf-200k": _search(200_000, 256, "ivf"),
    "hnsw-10k": _search(10_000, 256, "hnsw"),
    "hnsw-20k": _search(20_000, 256, "hnsw"),
    "hnsw-50k": _search(50_000, 256, "hnsw"),
    "declare-7k-30k": _declare(7_000, 30_000),
    "declare-7k-150k": _declare(7_000, 150_000),
    "declare-28k-100k": _declare(28_077, 100_000),
    "declare-28k-300k": _declare(28_077, 300_000),
    "declare-rows-5k": _declare(28_077, 5_000),
    "declare-rows-15k": _declare(28_077, 15_000),
    "rerank-10k": _search(10_000, 128, rerank_weights=100),
    "rerank-100k": _search(100_000, 128, rerank_weights=30),
    "rerank-30k": _search(30_000, 128, rerank_weights=200),
    "minilm": resolved(Wishes("unidec", 10_000, index="flat", encoder="transformer")),
}

# With so small an encoder a process shows what it takes always; its memory alone is measured.
SMALL: dict[str, Workload] = {
    "mach-small": _mach(10_000, 8, buckets=64),
    "ova-small": resolved(Wishes("ova", 10_000, dimension=9, index="flat", vocabulary=VOCABULARY)),
}

HELD_OUT: dict[str, Workload] = {
    "mach-500k": _mach(500_000),
    "mach-middle": _mach(50_000, 300, buckets=2048),
    "flat-30k": _search(30_000, 256),
    "flat-500k": _search(500_000, 128),
    "flat-leading": _search(100_000, 256, leading=128),
    "ivf-100k": _search(100_000, 256, "ivf"),
    "hnsw-25k": _search(25_000, 256, "hnsw"),
    "declare-28k-180k": _declare(28_077, 180_000),
    "declare-rows": _declare(28_077, 10_000),
    "rerank-50k": _search(50_000, 128, rerank_weights=60),
}

# What each is measured beside, of those that laws are fitted to.
REFERENCES = {
    "mach-500k": "mach-300k",
    "mach-middle": "mach-wide",
    "flat-30k": "flat-50k",
    "flat-500k": "flat-300k",
    "flat-leading": "leading-60k",
    "ivf-100k": "ivf-80k",
    "hnsw-25k": "hnsw-20k",
    "declare-28k-180k": "declare-28k-100k",
    "declare-rows": "declare-rows-5k",
    "rerank-50k": "rerank-30k",
}

# Those of them that are asked over HTTP as well.
SERVED = ("flat-30k", "mach-middle")
