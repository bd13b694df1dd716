"""Times MACH's search along lists against scoring all labels: scores of a trained model, more labels than it has.

    xmc-train fit --data sample --recipe mach --out build/artifacts/wide --set \
        method.repetitions=32 method.buckets=10000 'encoder.widths=[64]' training.epochs=2
    OMP_NUM_THREADS=1 python -m tests.benchmarks.mach_search build/artifacts/wide --data sample --labels 670091

The trained labels keep their buckets; others are hashed into the same ones. All labels are scored on one thread, and
on two that have half of the labels each. The search takes the queries in turn on one thread, and two threads share them
out. Every answer of the search is held against that of scoring all labels.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array

from service.bundle import layout
from service.bundle.manifest import HashSection, MachSection
from service.decoders.buckets import Buckets, Scores, fold
from service.decoders.mach import OUTPUT, MachDecoder
from service.search.topk import TopK, merge, select
from tests.bundles import inverted_lists
from training.artifact import read_artifact
from training.data.batches import Bags
from training.data.dataset import read_rows
from training.data.records import open_named
from training.methods.mach import Mach

KS = (5, 10, 100)
THREADS = (1, 2)
TIMED, QUERIES_AT_ONCE = 64, 256


def main() -> None:
    """Print sizes, the ways of scoring all labels, and the search for each k."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--data", required=True, metavar="DIR", help="data folder, or: sample")
    parser.add_argument("--labels", type=int, required=True, help="of the larger table")
    parser.add_argument("--queries", type=int, default=1000, help="test points, then training points")
    arguments = parser.parse_args()
    artifact, source = read_artifact(arguments.artifact), open_named(arguments.data)
    model = artifact.restore()
    assert isinstance(model, Mach)
    buckets_LR = spread(artifact.tables["buckets"], model.buckets, arguments.labels)
    lists = inverted_lists(buckets_LR, model.buckets)
    megabytes = sum(array.nbytes for array in (buckets_LR, *lists)) / 1e6
    print(
        f"{arguments.labels:,} labels, R={model.repetitions}, B={model.buckets}: tables and lists {megabytes:,.0f} MB"
    )
    decoder = MachDecoder(section(model), buckets_LR, *lists)
    splits = (
        read_rows(source, split, artifact.tokenizer, artifact.config.run.texts).inputs for split in ("tst", "trn")
    )
    blocks = list(blocks_of(splits, arguments.queries))
    first = logits(model, blocks[0])
    with ThreadPoolExecutor(max(THREADS)) as pool:
        scans = {threads: scan(first, buckets_LR, threads, pool) for threads in THREADS}
        listed = ", ".join(f"{1000 * seconds:.2f} on {threads}" for threads, seconds in scans.items())
        print(f"all labels, ms a query by threads: {listed}")
        fastest = min(scans.values())
        for k in KS:
            report(k, fastest, decoder, first, pool)
    checked = sum(check(decoder, logits(model, block), buckets_LR) for block in blocks)
    print(f"answers of {checked:,} queries are those of scoring all labels, for k = {', '.join(map(str, KS))}")


def spread(buckets_RL: NDArray[np.int32], buckets: int, labels: int) -> Buckets:
    """The table of so many labels, (L, R): the given ones, and others hashed into the same buckets."""
    R, known = buckets_RL.shape
    table_LR = np.empty((labels, R), dtype=layout.bucket_dtype(buckets))
    table_LR[:known] = buckets_RL.T
    table_LR[known:] = np.random.default_rng(0).integers(0, buckets, (labels - known, R), dtype=table_LR.dtype)
    return table_LR


def section(model: Mach) -> MachSection:
    """What a bundle would say of the model."""
    sizes = {"repetitions": model.repetitions, "buckets": model.buckets}
    return MachSection(**sizes, aggregation="sum_logits", activation="sigmoid", hash=HashSection(seed=0))


def blocks_of(splits: Iterator[csr_array], count: int) -> Iterator[csr_array]:
    """The first so many rows of the splits, few at a time: their scores are large."""
    rows = chain.from_iterable(
        (split[start : start + QUERIES_AT_ONCE] for start in range(0, split.shape[0], QUERIES_AT_ONCE))
        for split in splits
    )
    left = count
    for block in rows:
        yield csr_array(block[:left])
        left -= block.shape[0]
        if left <= 0:
            return


@torch.no_grad()
def logits(model: Mach, inputs: csr_array) -> Scores:
    """Bucket scores of queries, (Q, R, B)."""
    scores_QRB: Scores = model(Bags.from_csr(inputs, torch.device("cpu"))).numpy()
    return scores_QRB


def scan(scores_QRB: Scores, buckets_LR: Buckets, threads: int, pool: ThreadPoolExecutor) -> float:
    """Median seconds of a query when all labels are scored."""
    bounds = np.linspace(0, len(buckets_LR), threads + 1, dtype=int).tolist()

    def answer(query_QRB: Scores) -> TopK:
        return merge(list(pool.map(partial(part, query_QRB), bounds, bounds[1:])), max(KS))

    def part(query_QRB: Scores, low: int, high: int) -> TopK:
        found = select(fold(query_QRB, buckets_LR, low, high, least=False), max(KS))
        return TopK(found.ids_QK + low, found.scores_QK)

    return float(np.median(timed(answer, one_by_one(scores_QRB[:TIMED]))))


def one_by_one(scores_QRB: Scores) -> list[Scores]:
    """Batches of one query."""
    return [scores_QRB[query : query + 1] for query in range(len(scores_QRB))]


def report(k: int, fastest: float, decoder: MachDecoder, scores_QRB: Scores, pool: ThreadPoolExecutor) -> None:
    """Print what the search takes."""
    queries = one_by_one(scores_QRB)

    def answer(batch_QRB: Scores) -> TopK:
        return decoder.decode({OUTPUT: batch_QRB}, k)

    alone = timed(answer, queries)
    list(pool.map(answer, queries[: max(THREADS)]))  # each thread has its room to work in
    started = time.perf_counter()
    list(pool.map(answer, queries))
    together = (time.perf_counter() - started) / len(queries)
    p50, p90, p99 = 1000 * np.quantile(alone, (0.5, 0.9, 0.99))
    print(
        f"k={k:<4} search, ms: p50 {p50:.2f}, p90 {p90:.2f}, p99 {p99:.2f}, mean {1000 * alone.mean():.2f}, "
        f"on two threads {1000 * together:.2f} a query; {fastest / together:.1f} times as fast as scoring all labels"
    )


def timed(answer: Callable[[Scores], TopK], batches: list[Scores]) -> NDArray[np.float64]:
    """Seconds of every call, after one that is not timed."""
    answer(batches[0])
    seconds = []
    for batch in batches:
        started = time.perf_counter()
        answer(batch)
        seconds.append(time.perf_counter() - started)
    return np.array(seconds)


def check(decoder: MachDecoder, scores_QRB: Scores, buckets_LR: Buckets) -> int:
    """Hold answers against those of scoring all labels: how many."""
    for batch_QRB in one_by_one(scores_QRB):
        expected = select(fold(batch_QRB, buckets_LR, 0, len(buckets_LR), least=False), max(KS))
        for k in KS:
            found = decoder.decode({OUTPUT: batch_QRB}, k)
            np.testing.assert_array_equal(found.ids_QK, expected.ids_QK[:, :k])
            np.testing.assert_array_equal(found.scores_QK, expected.scores_QK[:, :k])
    return len(scores_QRB)


if __name__ == "__main__":
    main()
