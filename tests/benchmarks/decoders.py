"""Times of top-k selection and of the decoders on one thread.

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python -m tests.benchmarks.decoders

Sizes are those of the embedded sample (28,077 labels), and for exact search 200,000 labels as well; scores are random.
Each figure is the best of many runs, in milliseconds per query.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, random_array

from model_export.exact_search import write_exact_search
from service.bundle.manifest import DeclareSection, HashSection, MachSection
from service.decoders.declare import DeclareDecoder
from service.decoders.factors import FactorSearch
from service.decoders.mach import MachDecoder
from service.decoders.rows import TrainingRows
from service.search.exact import ExactSearch
from service.search.topk import TopK, select
from tests.bundles import inverted_lists

LABELS, REPETITIONS, BUCKETS = 28_077, 16, 1024
ROWS, VOTES_PER_ROW, RANK = 37_000, 4.5, 200
HEADS_DIMENSION = 256
MANY_LABELS = 200_000
# Up to this many queries, a product with each of them is cheaper in numpy than one with all.
QUERIES_ONE_BY_ONE = 3
QUERY_COUNTS = (1, 8, 64)
RUNS = 30


def main() -> None:
    """Print one line a case."""
    rng = np.random.default_rng(0)
    cases = (*selections(rng), *mach(rng), *declare(rng), *exact(rng, LABELS), *exact(rng, MANY_LABELS))
    for case, count, seconds in cases:
        print(f"{case:40} Q={count:<3} {1000 * seconds / count:8.4f} ms/query")


def selections(rng: np.random.Generator) -> Iterator[tuple[str, int, float]]:
    for count in QUERY_COUNTS:
        scores_QL = rng.standard_normal((count, LABELS), dtype=np.float32)
        scores_LQ = np.ascontiguousarray(scores_QL.T)
        for k in (5, 100):
            yield f"select k={k}", count, best(partial(select, scores_QL, k))
            yield f"select k={k}, transposed", count, best(partial(select, scores_LQ.T, k))
            yield f"argpartition k={k}", count, best(partial(argpartition, scores_QL, k))


def mach(rng: np.random.Generator) -> Iterator[tuple[str, int, float]]:
    buckets_LR = rng.integers(0, BUCKETS, (LABELS, REPETITIONS)).astype(np.uint16)
    lists = inverted_lists(buckets_LR, BUCKETS)
    for aggregation in ("sum_logits", "mean_prob", "min", "median"):
        section = MachSection(
            repetitions=REPETITIONS,
            buckets=BUCKETS,
            aggregation=aggregation,
            activation="sigmoid",
            hash=HashSection(seed=0),
        )
        decoder = MachDecoder(section, buckets_LR, *lists)
        for count in QUERY_COUNTS:
            logits = rng.standard_normal((count, REPETITIONS, BUCKETS), dtype=np.float32)
            yield f"mach {aggregation}", count, best(partial(decoder.decode, {"bucket_logits": logits}, 5))


def declare(rng: np.random.Generator) -> Iterator[tuple[str, int, float]]:
    density = VOTES_PER_ROW / LABELS
    votes_NL = csr_array(random_array((ROWS, LABELS), density=density, rng=rng, dtype=np.float32))
    factors_LC = rng.standard_normal((LABELS, RANK), dtype=np.float32)
    section = DeclareSection(rank=RANK, neighbours=25, recovery="factors")
    decoder = DeclareDecoder(section, TrainingRows(votes_NL, FactorSearch(votes_NL, factors_LC)))
    for count in QUERY_COUNTS:
        embeddings = rng.standard_normal((count, RANK), dtype=np.float32)
        yield "declare factors", count, best(partial(decoder.decode, {"embedding": embeddings}, 5))


def exact(rng: np.random.Generator, labels: int) -> Iterator[tuple[str, int, float]]:
    vectors_LD = rng.standard_normal((labels, HEADS_DIMENSION), dtype=np.float32)
    with tempfile.TemporaryDirectory() as folder:
        graph = Path(folder) / "search.onnx"
        write_exact_search(vectors_LD, graph.with_name("vectors.npy"), graph)
        search = ExactSearch.open(graph, dimension=HEADS_DIMENSION, size=labels, threads=1)
    index = faiss.IndexFlatIP(HEADS_DIMENSION)
    index.add(vectors_LD)
    faiss.omp_set_num_threads(1)
    for count in QUERY_COUNTS:
        queries = rng.standard_normal((count, HEADS_DIMENSION), dtype=np.float32)
        yield f"exact search, L={labels}", count, best(partial(search.search, queries, 5))
        yield f"numpy's product and select, L={labels}", count, best(partial(numpy_search, vectors_LD, queries, 5))
        yield f"FAISS's exact search, L={labels}", count, best(partial(index.search, queries, 5))


def numpy_search(vectors_LD: NDArray[np.float32], queries_QD: NDArray[np.float32], k: int) -> TopK:
    """Exact search without a packed constant, for comparison."""
    if len(queries_QD) <= QUERIES_ONE_BY_ONE:
        return select(np.stack([vectors_LD @ query_D for query_D in queries_QD]), k)
    return select((vectors_LD @ queries_QD.T).T, k)


def argpartition(scores_QL: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """The usual way, for comparison; its ties are not exact."""
    ids = np.argpartition(scores_QL, LABELS - k, axis=1)[:, LABELS - k :]
    order = np.lexsort((ids, -np.take_along_axis(scores_QL, ids, axis=1)), axis=1)
    return np.take_along_axis(ids, order, axis=1)


def best(run: Callable[[], object]) -> float:
    def once() -> float:
        started = time.perf_counter()
        run()
        return time.perf_counter() - started

    return min(once() for _ in range(RUNS))


if __name__ == "__main__":
    main()
