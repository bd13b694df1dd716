"""Queries a second and latency of bundles with very many labels, on a GPU.

    xmc-export build ARTIFACT --out build/gpu/minilm --precision fp16 --index flat
    python -m tests.benchmarks.gpu build/gpu/minilm=1300000 build/gpu/mach=3000000

Each bundle is widened to the number of labels beside it: encoder and tokenizer stay as they are, and label vectors
(random, of length 1) or buckets (random) take the place of the trained ones; what a GPU computes does not depend on
them. Its golden answers come from the CPU, and opening it on the GPU checks them. Then the engine is timed, and after
that a server by its own load generator, which shares the machine. `--device cpu` tells what the GPU is worth.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model_export.exact_search import write_exact_search
from model_export.exporters.mach import write_inverted_lists
from model_export.verify import golden_answers
from service.bundle import content_version, file_entry, layout, load_bundle, open_bundle, write_labels
from service.bundle.manifest import MachSection, Manifest
from service.bundle.reader import read_manifest
from service.bundle.searching import IndexSection, OvaSection, SearchSection, UnidecSection
from service.engine import Engine
from service.measuring.bench import Plan, bench, table
from service.search.topk import ranges
from tests.benchmarks.server import running

BATCHES = (1, 8, 32, 128)
CONNECTIONS = (1, 64, 256)
K = 10
# Answers that are compared, and runs of each batch.
COMPARED, RUNS = 64, 100
BLOCK_ROWS = 1 << 16
SECONDS = 4.0
# Of scores, whose products are summed in another order.
TOLERANCE = 1e-3


def main() -> None:
    """Widen, check and time each bundle."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", nargs="+", metavar="BUNDLE=LABELS")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--cache", type=Path, default=Path("build/gpu"), help="of widened bundles")
    parser.add_argument("--queries", type=Path, help="a text a line (default: the bundle's golden queries)")
    chosen = parser.parse_args()
    print(_device(chosen.device))
    for pair in chosen.bundles:
        path, _, labels = pair.rpartition("=")
        _report(Path(path), int(labels), chosen.cache, chosen.device, chosen.queries)


def _report(source: Path, labels: int, cache: Path, device: str, queries: Path | None) -> None:
    folder = cache / f"{source.name}-{labels}"
    if not (folder / layout.MANIFEST).exists():
        widen(source, labels, folder)
    started = time.perf_counter()
    engine = Engine.open(open_bundle(folder), device=device)
    engine.warm_up()
    engine.check_golden()
    seconds = time.perf_counter() - started
    method = engine.manifest.method
    print(f"{source.name}: {method.name}, {labels:,} labels, {engine.manifest.precision}, open in {seconds:.1f} s")
    asked = queries.read_text(encoding="utf-8").splitlines() if queries else engine.golden_queries
    if device != "cpu":
        print(f"  {_compare(engine, Engine.open(open_bundle(folder), device='cpu', threads=8), asked)}")
    print("  batch   ms p50      p99   encode   search   queries/s")
    for rows in BATCHES:
        _time(engine, asked, rows)
    del engine
    command = [sys.executable, "-m", "service.cli", "run", "--bundle", str(folder), "--device", device]
    with running(command) as url:
        plan = Plan(url, queries=queries, k=K, concurrency=CONNECTIONS, seconds=SECONDS)
        bench(plan)
        print(table(bench(plan)), flush=True)


def _compare(engine: Engine, other: Engine, asked: Sequence[object]) -> str:
    """What sets two engines' answers apart."""
    bags = engine.prepare((list(asked) * COMPARED)[:COMPARED])  # type: ignore[arg-type]
    top, expected = (one.run(bags, K).top for one in (engine, other))
    off = float(np.abs(top.scores_QK - expected.scores_QK).max())
    same = float((top.ids_QK == expected.ids_QK).mean())
    if off > TOLERANCE * max(1.0, float(np.abs(expected.scores_QK).max())):
        raise SystemExit(f"scores differ by {off:.2g} from the CPU's")
    return f"of {COMPARED} x {K} labels {same:.1%} are the CPU's in their places; scores differ by {off:.1g} at most"


def _time(engine: Engine, asked: Sequence[object], rows: int) -> None:
    bags = engine.prepare((list(asked) * rows)[: max(rows, len(asked))])  # type: ignore[arg-type]
    spent: list[tuple[float, float, float]] = []
    for run in range(RUNS + 3):
        start = run * rows % (len(bags) - rows + 1)
        started = time.perf_counter()
        answer = engine.run(bags[start : start + rows], K)
        spent.append((time.perf_counter() - started, answer.encode_seconds, answer.search_seconds))
    seconds = np.array(spent[3:])
    whole, encode, search = 1000 * np.median(seconds, axis=0)
    print(
        f"  {rows:5} {whole:8.2f} {1000 * np.quantile(seconds[:, 0], 0.99):8.2f} {encode:8.2f} {search:8.2f}"
        f" {1000 * rows / whole:11,.0f}",
        flush=True,
    )


def widen(source: Path, labels: int, folder: Path) -> None:
    """Write a bundle with more labels than it was trained for."""
    manifest = read_manifest(source)
    folder.mkdir(parents=True)
    for name in (layout.ENCODER, layout.TOKENIZER):
        shutil.copyfile(source / name, folder / name)
    write_labels(folder, [str(row) for row in range(labels)], None)
    rng = np.random.default_rng(0)
    match manifest.method:
        case MachSection() as mach:
            buckets_LR = rng.integers(0, mach.buckets, (labels, mach.repetitions), layout.bucket_dtype(mach.buckets))
            np.save(folder / layout.MACH_BUCKETS, buckets_LR)
            write_inverted_lists(folder, buckets_LR, mach.buckets)
        case UnidecSection() | OvaSection() as search:
            vectors_LD = _directions(rng, labels, search.dimension)
            write_exact_search(vectors_LD, folder / layout.LABEL_VECTORS, folder / layout.LABEL_SEARCH)
        case _:
            raise SystemExit(f"{source}: expected a bundle of MACH, UniDEC or one-vs-all")
    _sign(manifest, labels, folder)


def _directions(rng: np.random.Generator, rows: int, dimension: int) -> NDArray[np.float32]:
    vectors_LD = np.empty((rows, dimension), dtype=np.float32)
    for low, high in ranges(rows, BLOCK_ROWS):
        block = rng.standard_normal((high - low, dimension), dtype=np.float32)
        vectors_LD[low:high] = block / np.linalg.norm(block, axis=1, keepdims=True)
    return vectors_LD


def _sign(manifest: Manifest, labels: int, folder: Path) -> None:
    """Write the manifest, with the CPU's answers to the golden queries; scores are raw: none were ever calibrated."""
    files = {file.name: file_entry(file) for file in sorted(folder.iterdir())}
    method = manifest.method
    if isinstance(method, SearchSection):
        method = method.model_copy(update={"index": IndexSection(type="flat", recall=1.0)})
    draft = manifest.model_copy(
        update={
            "name": folder.name,
            "version": content_version(manifest.input, method, files, None, None, None),
            "method": method,
            "label_count": labels,
            "has_label_texts": False,
            "calibration": None,
            "propensity": None,
            "rerank": None,
            "files": files,
        }
    )
    engine = Engine.open(load_bundle(folder, draft), device="cpu")
    golden = golden_answers(engine, engine.golden_queries)
    (folder / layout.MANIFEST).write_text(draft.model_copy(update={"golden": golden}).model_dump_json(indent=1) + "\n")


def _device(device: str) -> str:
    if device == "cpu":
        return "CPU"
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    return subprocess.run(query, check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    main()
