"""Times DECLARE's search along lists against computing all similarities: a trained model, more rows than it has.

    xmc-train fit --data sample --recipe declare --out build/artifacts/declare
    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python -m tests.benchmarks.declare_search build/artifacts/declare \
        --data sample --rows 600000

The trained rows stay; others are made of them: each takes a row's labels, loses some, and gains some of a row that it
shares a label with. Rows with the same labels are merged as in training. Queries are the test points, as the model
regresses them. Every query is timed several times, and its best time counts: the rest is other processes.

Every answer is held against computing all similarities, which it equals to the bit, and against the dense rows of Z.
There a query is left out if which row is its last neighbour is rounding, and labels with equal scores may swap.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array, vstack

from service.bundle.manifest import DeclareSection
from service.decoders import factors, nearest
from service.decoders.declare import OUTPUT, DeclareDecoder
from service.decoders.factors import MOST_SEARCHED, FactorSearch
from service.decoders.rows import TrainingRows
from service.search.topk import TopK, select
from service.search.votes import Votes
from training.artifact import read_artifact
from training.compression import Projected, kept_lengths, row_lengths, unit_rows
from training.data.batches import Bags
from training.data.dataset import read_rows
from training.data.records import open_named
from training.methods.declare import Declare
from training.voting import merge_duplicates

KEPT, GAINED = 0.8, 0.1
K, QUERIES_AT_ONCE, ROUNDS = 10, 32, 7
ROUNDING = 1e-5

Floats = NDArray[np.float32]
Rows = tuple[csr_array, Floats, NDArray[np.int32]]


def main() -> None:
    """Print sizes, both searches alone and in batches, and what the answers were held against."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--data", required=True, metavar="DIR", help="data folder, or: sample")
    parser.add_argument("--rows", type=int, required=True, help="training rows, at least")
    parser.add_argument("--queries", type=int, default=4000, help="test points, at most")
    arguments = parser.parse_args()
    artifact, source = read_artifact(arguments.artifact), open_named(arguments.data)
    model = artifact.restore()
    assert isinstance(model, Declare)
    inputs = read_rows(source, "tst", artifact.tokenizer, artifact.config.run.texts).inputs[: arguments.queries]
    embeddings_QC = embedded(model, csr_array(inputs))
    table = np.ascontiguousarray(artifact.tables["factors"])
    rows = spread(model, table, arguments.rows)
    scanning, searching = decoder(model, table, rows, searched=False), decoder(model, table, rows, searched=True)
    report_sizes(table, rows)
    for name, made in (("all similarities", scanning), ("search", searching)):
        report(name, made, embeddings_QC)
    check(scanning, searching, embeddings_QC)
    check_dense(searching, model, table, rows, embeddings_QC)


@torch.no_grad()
def embedded(model: Declare, inputs: csr_array) -> Floats:
    """What is compared with rows of Z, (Q, C)."""
    starts = range(0, inputs.shape[0], QUERIES_AT_ONCE)
    bags = (Bags.from_csr(csr_array(inputs[low : low + QUERIES_AT_ONCE]), torch.device("cpu")) for low in starts)
    return np.concatenate([model.embed(model(bag)).numpy() for bag in bags])


def spread(model: Declare, factors_LC: Floats, count: int) -> Rows:
    """Distinct rows of so many training rows at least, what their similarities are divided by, and their numbers."""
    lacking = count - int(model.counts_G.sum())
    if lacking <= 0:
        return model.votes_GL, model.lengths_G, model.counts_G
    trained_NL = model.votes_GL[np.repeat(np.arange(len(model.counts_G)), model.counts_G)]
    trained_NL.data[:] = 1
    votes_GL, groups_N = merge_duplicates(csr_array(vstack([trained_NL, varied(trained_NL, lacking)])))
    unit_GL = unit_rows(votes_GL)
    lengths_G = kept_lengths(Projected(unit_GL, factors_LC), row_lengths(unit_GL)).astype(np.float32)
    return unit_GL, lengths_G, np.bincount(groups_N).astype(np.int32)


def varied(rows_NL: csr_array, count: int) -> csr_array:
    """So many rows, each like one of the given ones and a little like another that has a label of it."""
    rng = np.random.default_rng(0)
    rows_LN = rows_NL.T.tocsr()

    def any_entry(matrix: csr_array, rows: NDArray[np.integer]) -> NDArray[np.integer]:
        starts, ends = matrix.indptr[rows], matrix.indptr[rows + 1]
        entries: NDArray[np.integer] = matrix.indices[starts + (rng.random(len(rows)) * (ends - starts)).astype(int)]
        return entries

    chosen = rng.choice(np.flatnonzero(np.diff(rows_NL.indptr)), count)
    shared = any_entry(rows_NL, chosen)
    first, second = rows_NL[chosen], rows_NL[any_entry(rows_LN, shared)]
    stays = first.indices == np.repeat(shared, np.diff(first.indptr))
    first.data[:] = stays | (rng.random(first.nnz) < KEPT)
    second.data[:] = rng.random(second.nnz) < GAINED
    both = csr_array(first + second)
    both.eliminate_zeros()
    both.data[:] = 1
    return both


def decoder(model: Declare, factors_LC: Floats, rows: Rows, *, searched: bool) -> DeclareDecoder:
    """The decoder of a bundle with these rows."""
    votes_GL, lengths_G, counts_G = rows
    factors.SEARCHED_VOTES, votes = 0 if searched else votes_GL.nnz + 1, Votes.from_csr(votes_GL)
    return DeclareDecoder(
        section(model), TrainingRows(votes, FactorSearch(votes, factors_LC, lengths_G, counts_G), counts_G)
    )


def section(model: Declare) -> DeclareSection:
    """What a bundle would say of the model."""
    return DeclareSection(
        rank=model.head.out_features,
        neighbours=model.config.neighbours,
        recovery="factors",
        temperature=model.config.vote_temperature or None,
    )


def report_sizes(factors_LC: Floats, rows: Rows) -> None:
    """Print numbers of rows and votes, and the bytes of what is held beside those of the dense rows of Z."""
    votes_GL, lengths_G, counts_G = rows
    kept = Votes.from_csr(votes_GL)
    started = time.perf_counter()
    made = nearest.make_lists(kept, factors_LC, lengths_G)
    seconds = time.perf_counter() - started
    lists = sum(part.nbytes for part in made if isinstance(part, np.ndarray))
    votes = sum(part.nbytes for part in (kept.starts_G, kept.labels_P, kept.values, lengths_G, counts_G))
    room = sum(part.nbytes for part in nearest.make_room(len(counts_G)))
    held, dense = factors_LC.nbytes + votes + lists + room, 4 * int(counts_G.sum()) * factors_LC.shape[1]
    print(
        f"{counts_G.sum():,} training rows, {len(counts_G):,} of them distinct, of {votes_GL.nnz / len(counts_G):.1f} "
        f"labels; {len(factors_LC):,} labels, rank {factors_LC.shape[1]}\n"
        f"MB: factors {factors_LC.nbytes / 1e6:.1f}, votes {votes / 1e6:.1f}, lists {lists / 1e6:.1f} (made in "
        f"{seconds:.1f} s), room of a thread {room / 1e6:.1f}; in all {held / 1e6:.1f}, dense Z {dense / 1e6:.1f}: "
        f"1/{dense / held:.1f}"
    )


def report(name: str, made: DeclareDecoder, embeddings_QC: Floats) -> None:
    """Print what a decoder takes, alone and in batches."""
    alone = timed(lambda query: made.decode({OUTPUT: query}, K), cut(embeddings_QC[:500], 1))
    few = timed(lambda batch: made.decode({OUTPUT: batch}, K), cut(embeddings_QC[:320], MOST_SEARCHED))
    together = timed(lambda batch: made.decode({OUTPUT: batch}, K), cut(embeddings_QC[:320], QUERIES_AT_ONCE))
    p50, p90, p99 = 1000 * np.quantile(alone, (0.5, 0.9, 0.99))
    print(
        f"{name}: ms alone p50 {p50:.2f}, p90 {p90:.2f}, p99 {p99:.2f}, mean {1000 * alone.mean():.2f}; a query in "
        f"batches of {MOST_SEARCHED} {1000 * few.mean() / MOST_SEARCHED:.2f}, "
        f"of {QUERIES_AT_ONCE} {1000 * together.mean() / QUERIES_AT_ONCE:.2f}"
    )


def cut(embeddings_QC: Floats, size: int) -> list[Floats]:
    """Batches of so many queries."""
    return [embeddings_QC[low : low + size] for low in range(0, len(embeddings_QC), size)]


def timed(answer: Callable[[Floats], TopK], batches: list[Floats]) -> NDArray[np.float64]:
    """Seconds of every batch, the best of some rounds."""
    rounds = []
    for _ in range(ROUNDS):
        rounds.append([])
        for batch in batches:
            started = time.perf_counter()
            answer(batch)
            rounds[-1].append(time.perf_counter() - started)
    return np.min(rounds, axis=0)


def check(scanning: DeclareDecoder, searching: DeclareDecoder, embeddings_QC: Floats) -> None:
    """Hold the search against computing all similarities."""
    for query_QC in cut(embeddings_QC, 1):
        expected, found = (made.decode({OUTPUT: query_QC}, K) for made in (scanning, searching))
        np.testing.assert_array_equal(found.ids_QK, expected.ids_QK)
        np.testing.assert_array_equal(found.scores_QK, expected.scores_QK)
    print(f"answers of {len(embeddings_QC):,} queries are those of all similarities, to the bit")


def check_dense(
    searching: DeclareDecoder, model: Declare, factors_LC: Floats, rows: Rows, embeddings_QC: Floats
) -> None:
    """Hold the search against the rows of Z."""
    votes_GL, lengths_G, counts_G = rows
    rows_GC = (votes_GL @ factors_LC) / lengths_G[:, None]
    neighbours, checked = model.config.neighbours, 0

    def exact(batch_QC: Floats, count: int) -> TopK:
        return select(batch_QC @ rows_GC.T, count)

    dense = DeclareDecoder(section(model), TrainingRows(Votes.from_csr(votes_GL), exact, counts_G))
    for batch_QC in cut(embeddings_QC, QUERIES_AT_ONCE):
        decided_Q = decided(exact(batch_QC, neighbours + 1), counts_G, neighbours)
        expected = dense.decode({OUTPUT: batch_QC}, K)
        alone = [searching.decode({OUTPUT: query_QC}, K) for query_QC in cut(batch_QC, 1)]
        found = TopK(np.concatenate([one.ids_QK for one in alone]), np.concatenate([one.scores_QK for one in alone]))
        np.testing.assert_allclose(found.scores_QK[decided_Q], expected.scores_QK[decided_Q], rtol=1e-3, atol=1e-5)
        apart_QK = np.abs(np.diff(expected.scores_QK, axis=1, append=0, prepend=np.inf)) > 1e-3 * np.abs(
            expected.scores_QK[:, :1]
        )
        clear_QK = apart_QK[:, 1:] & apart_QK[:, :-1] & decided_Q[:, None]
        np.testing.assert_array_equal(found.ids_QK[clear_QK], expected.ids_QK[clear_QK])
        checked += int(decided_Q.sum())
    print(f"answers of {checked:,} queries are those of the dense rows of Z; the rest lie on the edge of rounding")


def decided(top: TopK, counts_G: NDArray[np.int32], neighbours: int) -> NDArray[np.bool_]:
    """Whether rounding cannot swap the last row that votes, perhaps in part, with its neighbours in the list, (Q,)."""
    totals_QN = np.cumsum(counts_G[top.ids_QK], axis=1)
    last_Q1 = (totals_QN < neighbours).sum(axis=1, keepdims=True).clip(max=top.ids_QK.shape[1] - 2)
    before_Q1, last_Q1, next_Q1 = (
        np.take_along_axis(top.scores_QK, (last_Q1 + step).clip(min=0), axis=1) for step in (-1, 0, 1)
    )
    gaps_Q: NDArray[np.bool_] = ((before_Q1 - last_Q1 > ROUNDING) & (last_Q1 - next_Q1 > ROUNDING))[:, 0]
    return gaps_Q


if __name__ == "__main__":
    main()
