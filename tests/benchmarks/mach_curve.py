"""Times MACH's search as labels grow: scores of one trained model, tables and lists memory-mapped.

    xmc-train fit --data sample --recipe mach --out build/artifacts/wider --set \
        method.repetitions=32 method.buckets=20000 'encoder.widths=[64]' training.epochs=2
    OMP_NUM_THREADS=1 python -m tests.benchmarks.mach_curve build/artifacts/wider --data sample --cache build/mach \
        --labels 670091,2000000,10000000,50000000

The trained labels keep their buckets; others are hashed into the same ones, and a smaller table is the beginning of a
larger one. Files are written once, where they are missing. One thread takes the queries in turn. Answers of the first
queries are held against those of scoring all labels, of as many as `CHECKED_SCORES` allows.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from model_export.exporters.mach import write_inverted_lists
from service.bundle import layout
from service.bundle.files import map_array
from service.decoders.buckets import Buckets, Scores
from service.decoders.mach import OUTPUT, MachDecoder
from service.search.topk import ranges
from tests.benchmarks.mach_search import KS, blocks_of, check, logits, one_by_one, section
from training.artifact import read_artifact
from training.data.dataset import read_rows
from training.data.records import open_named
from training.methods.mach import Mach

BLOCK_ROWS = 1 << 20
# Labels scored to check one table's answers, over all queries.
CHECKED_SCORES = 1_600_000_000
# Where searches fail, every query scores all labels, and fewer queries are timed.
UNTIMED, MOST_SECONDS = 8, 30.0


def main() -> None:
    """Print sizes, and for each number of labels what a query takes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--data", required=True, metavar="DIR", help="data folder, or: sample")
    parser.add_argument("--cache", type=Path, required=True, metavar="DIR", help="of tables and lists")
    parser.add_argument("--labels", required=True, metavar="L,L,...", help="ascending")
    parser.add_argument("--queries", type=int, default=256, help="test points")
    arguments = parser.parse_args()
    counts = [int(count) for count in arguments.labels.split(",")]
    artifact = read_artifact(arguments.artifact)
    model = artifact.restore()
    assert isinstance(model, Mach)
    largest_LR = table(arguments.cache, artifact.tables["buckets"], model.buckets, counts[-1])
    inputs = read_rows(open_named(arguments.data), "tst", artifact.tokenizer, artifact.config.run.texts).inputs
    scores_QRB = np.concatenate([logits(model, block) for block in blocks_of(iter([inputs]), arguments.queries)])
    bases: dict[int, float] = {}
    for count in counts:
        buckets_LR = largest_LR[:count]
        lists = inverted_lists(arguments.cache / f"{model.buckets}-{count}", buckets_LR, model.buckets)
        gigabytes = [array.nbytes / 1e9 for array in (buckets_LR, *lists)]
        print(
            f"{count:,} labels, R={model.repetitions}, B={model.buckets}: table {gigabytes[0]:.2f} GB, "
            f"lists {sum(gigabytes[1:]):.2f} GB"
        )
        for array in (buckets_LR, *lists):
            array.max()  # into memory, as opening a bundle does
        decoder = MachDecoder(section(model), buckets_LR, *lists)
        for k in KS:
            report(k, decoder, scores_QRB, bases)
        checked = check(decoder, scores_QRB[: CHECKED_SCORES // count], buckets_LR)
        print(f"  answers of {checked:,} queries are those of scoring all labels, for k = {', '.join(map(str, KS))}")


def table(cache: Path, buckets_RL: NDArray[np.int32], buckets: int, labels: int) -> Buckets:
    """The table (L, R): the given labels, and others hashed into the same buckets, written block by block."""
    R, known = buckets_RL.shape
    file = cache / f"{buckets}-{labels}.npy"
    if not file.exists():
        cache.mkdir(parents=True, exist_ok=True)
        draft = file.with_suffix(".part")
        table_LR = open_memmap(draft, "w+", np.dtype(layout.bucket_dtype(buckets)), (labels, R))
        rng = np.random.default_rng(0)
        for low, high in ranges(labels, BLOCK_ROWS):
            table_LR[low:high] = rng.integers(0, buckets, (high - low, R), dtype=table_LR.dtype)
        table_LR[:known] = buckets_RL.T
        table_LR.flush()
        draft.rename(file)
    return map_array(file)


def inverted_lists(folder: Path, buckets_LR: Buckets, buckets: int) -> list[NDArray[Any]]:
    """The lists of a table, as a bundle has them."""
    if not folder.exists():
        draft = folder.with_suffix(".part")
        draft.mkdir(parents=True, exist_ok=True)
        write_inverted_lists(draft, buckets_LR, buckets)
        draft.rename(folder)
    names = (layout.MACH_INVERTED_STEPS, layout.MACH_INVERTED_PARTNERS, layout.MACH_INVERTED_OFFSETS)
    return [map_array(folder / name) for name in names]


def report(k: int, decoder: MachDecoder, scores_QRB: Scores, bases: dict[int, float]) -> None:
    """Print what a query takes, also as a multiple of what it takes with the fewest labels."""
    seconds = timed(decoder, k, one_by_one(scores_QRB))
    p50, p90 = 1000 * np.quantile(seconds, (0.5, 0.9))
    base = bases.setdefault(k, p50)
    print(
        f"  k={k:<4} ms: p50 {p50:.2f}, p90 {p90:.2f}, mean {1000 * seconds.mean():.2f} of {len(seconds)} queries; "
        f"p50 is {p50 / base:.1f} times that of the fewest labels"
    )


def timed(decoder: MachDecoder, k: int, batches: Sequence[Scores]) -> NDArray[np.float64]:
    """Seconds of each query, after a few that are not timed."""
    for batch in batches[:UNTIMED]:
        decoder.decode({OUTPUT: batch}, k)
    seconds: list[float] = []
    for batch in batches:
        started = time.perf_counter()
        decoder.decode({OUTPUT: batch}, k)
        seconds.append(time.perf_counter() - started)
        if sum(seconds) > MOST_SECONDS:
            break
    return np.array(seconds)


if __name__ == "__main__":
    main()
