"""Train one library on a data folder, rank the test split with it, and write what `xmc-train compare --peers` reads.

    build/peers/venv/bin/python -m tests.benchmarks.peers.run {pecos,omikuji,napkinxc} --data DIR --out FOLDER

Run in the libraries' own environment (see README.md), from the root of the project.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

from tests.benchmarks.peers.libraries import LIBRARIES, Library
from tests.benchmarks.peers.vectors import Vectors, read_vectors
from training import memory
from training.compare.truth import read_truth
from training.data.records import open_named
from training.ranking import WIDTH, write_ranking

TIMED_QUERIES = 1000
TIMED_K = 5


def main() -> None:
    """Measure one library."""
    arguments = _arguments()
    folder, name = arguments.out, arguments.library
    folder.mkdir(parents=True, exist_ok=True)
    library = LIBRARIES[name](folder / name)
    source = open_named(arguments.data)
    libraries_bytes = memory.resident_bytes()
    started, cpu_started = time.perf_counter(), time.process_time()
    vectors = read_vectors(source)
    library.take(vectors.train_NF, vectors.labels_NL)
    read = time.perf_counter()
    library.fit()
    trained, cpu_trained, peak_bytes = time.perf_counter(), time.process_time(), memory.peak_bytes()
    write_ranking(folder / f"{name}.npy", library.rank(vectors.test_NF, WIDTH))
    figures = {
        "name": name,
        "library": library.version,
        "settings": f"{library.settings}; {vectors.settings}",
        "test_digest": read_truth(source).digest,
        "ranking": f"{name}.npy",
        "read_seconds": read - started,
        "train_seconds": trained - read,
        "cpu_seconds": cpu_trained - cpu_started,
        "model_bytes": sum(file.stat().st_size for file in library.folder.rglob("*") if file.is_file()),
        "libraries_bytes": libraries_bytes,
        "peak_bytes": peak_bytes,
        **_latency(library, vectors),
    }
    (folder / f"{name}.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {folder / name}.json")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", choices=LIBRARIES)
    parser.add_argument("--data", required=True, metavar="DIR", help='data folder, or "sample"')
    parser.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="for the model, ranking and figures")
    return parser.parse_args()


def _latency(library: Library, vectors: Vectors) -> dict[str, float]:
    """Times of the first test rows, one at a time, in milliseconds."""
    library.use_one_thread()
    prepare_ms, ask_ms = [], []
    for row in range(min(TIMED_QUERIES, vectors.test_NF.shape[0])):
        started = time.perf_counter()
        vector = vectors.one(row)
        prepared = time.perf_counter()
        library.ask(vector, TIMED_K)
        ended = time.perf_counter()
        prepare_ms.append(1000 * (prepared - started))
        ask_ms.append(1000 * (ended - prepared))
    p50_ms, p99_ms = np.percentile(ask_ms, (50, 99)).tolist()
    return {
        "queries": len(ask_ms),
        "p50_ms": p50_ms,
        "p99_ms": p99_ms,
        "prepare_p50_ms": float(np.median(prepare_ms)),
    }


if __name__ == "__main__":
    main()
