"""Sharded decoders against whole ones, for any tables, cuts and numbers of answers: equal, ties included.

Numbers are small integers, so that sums are exact and ties are real.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from model_export.sharding import balanced
from service.bundle.manifest import Activation, Aggregation
from service.bundle.searching import IndexSection, UnidecSection
from service.bundle.shards import ShardEntry
from service.decoders.base import Decoder
from service.decoders.declare import DeclareDecoder
from service.decoders.search import SearchDecoder, VectorScorer
from service.search.topk import select
from service.sharding.decoder import ShardedDecoder, ShardedRows
from service.sharding.shards import LocalShards
from tests.service.decoders import test_declare as declare
from tests.service.decoders import test_mach as mach

SIZES = st.integers(1, 12)
SEEDS = st.integers(0, 2**32 - 1)
CUTS = st.lists(st.integers(1, 200), max_size=5)


def borders_of(cuts: Sequence[int], rows: int) -> list[int]:
    """0, the cuts that lie between, and the number of rows."""
    return sorted({0, rows, *(cut for cut in cuts if cut < rows)})


def entries_of(borders: Sequence[int]) -> list[ShardEntry]:
    return [
        ShardEntry(folder=f"shard-{place}", sha256="0" * 64, first=low, count=high - low)
        for place, (low, high) in enumerate(pairwise(borders))
    ]


def some_rows(rng: np.random.Generator, count: int) -> NDArray[np.int64]:
    return np.union1d(np.flatnonzero(rng.random(count) < 0.3), rng.integers(count))


def sharded(decoders: Sequence[Decoder], borders: Sequence[int]) -> ShardedDecoder:
    return ShardedDecoder(LocalShards(decoders), entries_of(borders))


def assert_same(whole: Decoder, parts: Decoder, outputs: dict[str, NDArray[np.float32]], k: int, rows: Any) -> None:
    """Equal answers, and for the first query equal scores and explanations of some labels."""
    expected, found = whole.decode(outputs, k), parts.decode(outputs, k)
    np.testing.assert_array_equal(found.ids_QK, expected.ids_QK)
    np.testing.assert_array_equal(found.scores_QK, expected.scores_QK)
    first = {name: array[:1] for name, array in outputs.items()}
    np.testing.assert_array_equal(parts.scorer.score(first, rows), whole.scorer.score(first, rows))
    assert parts.scorer.explain(first, rows[::-1]) == whole.scorer.explain(first, rows[::-1])
    assert parts.required_outputs == whole.required_outputs
    assert parts.scorer.exact == whole.scorer.exact


@given(
    seed=SEEDS,
    queries=st.integers(1, 5),
    repetitions=SIZES,
    buckets=st.integers(2, 20),
    labels=st.integers(1, 200),
    cuts=CUTS,
    k=st.integers(1, 250),
    aggregation=st.sampled_from(mach.AGGREGATIONS),
    activation=st.sampled_from(mach.ACTIVATIONS),
)
def test_mach(
    seed: int,
    queries: int,
    repetitions: int,
    buckets: int,
    labels: int,
    cuts: list[int],
    k: int,
    aggregation: Aggregation,
    activation: Activation,
) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.integers(-3, 4, (queries, repetitions, buckets)).astype(np.float32)
    buckets_RL = rng.integers(0, buckets, (repetitions, labels)).astype(np.uint8)
    borders = borders_of(cuts, labels)
    parts = [mach.decoder(buckets_RL[:, low:high], buckets, aggregation, activation) for low, high in pairwise(borders)]
    rows = some_rows(rng, labels)
    whole = mach.decoder(buckets_RL, buckets, aggregation, activation)
    assert_same(whole, sharded(parts, borders), {"bucket_logits": logits}, k, rows)


@given(seed=SEEDS, queries=st.integers(1, 5), labels=st.integers(1, 200), cuts=CUTS, k=st.integers(1, 250))
def test_search(seed: int, queries: int, labels: int, cuts: list[int], k: int) -> None:
    rng = np.random.default_rng(seed)
    section = UnidecSection(dimension=4, heads="both", index=IndexSection(type="flat", recall=1.0))
    vectors_LD = rng.integers(-2, 3, (labels, 4)).astype(np.float32)

    def decoder(low: int, high: int) -> SearchDecoder:
        part_LD = vectors_LD[low:high]
        return SearchDecoder(
            section, lambda query_QD, k: select(query_QD @ part_LD.T, k), VectorScorer(section, part_LD)
        )

    borders = borders_of(cuts, labels)
    parts = [decoder(low, high) for low, high in pairwise(borders)]
    outputs = {"query": rng.integers(-2, 3, (queries, 4)).astype(np.float32)}
    rows = some_rows(rng, labels)
    assert_same(decoder(0, labels), sharded(parts, borders), outputs, k, rows)


@given(
    seed=SEEDS,
    queries=st.integers(1, 5),
    rows=st.integers(1, 40),
    labels=SIZES,
    neighbours=st.integers(1, 15),
    cuts=st.lists(st.integers(1, 40), max_size=5),
    k=st.integers(1, 15),
    counted=st.booleans(),
    temperature=st.sampled_from([None, 0.5]),
)
def test_declare(
    seed: int,
    queries: int,
    rows: int,
    labels: int,
    neighbours: int,
    cuts: list[int],
    k: int,
    counted: bool,
    temperature: float | None,
) -> None:
    rng = np.random.default_rng(seed)
    votes_GL = rng.integers(0, 3, (rows, labels)).astype(np.float32)
    factors_LC = rng.integers(-2, 3, (labels, 3)).astype(np.float32)
    lengths_G = 2.0 ** rng.integers(-1, 2, rows).astype(np.float32)
    counts_G = rng.integers(1, 4, rows).astype(np.int32) if counted else None

    def decoder(low: int, high: int) -> DeclareDecoder:
        return declare.decoder(
            votes_GL[low:high],
            factors_LC,
            neighbours,
            lengths_G=lengths_G[low:high],
            counts_G=None if counts_G is None else counts_G[low:high],
            temperature=temperature,
        )

    borders, parts = borders_of(cuts, rows), decoder(0, rows)
    shards = LocalShards([decoder(low, high) for low, high in pairwise(borders)])
    parts.rows = ShardedRows(shards, entries_of(borders), labels)
    outputs = {"embedding": rng.integers(-2, 3, (queries, 3)).astype(np.float32)}
    assert_same(decoder(0, rows), parts, outputs, k, some_rows(rng, labels))


@given(costs=st.lists(st.floats(0.1, 100), min_size=1, max_size=60), count=st.integers(1, 60))
def test_runs_of_rows_cost_about_the_same(costs: list[float], count: int) -> None:
    count = min(count, len(costs))
    runs = balanced(np.array(costs), count)
    assert [low for low, _ in runs] == [0, *(high for _, high in runs[:-1])]
    assert (len(runs), runs[-1].high) == (count, len(costs))
    assert all(low < high for low, high in runs)


def test_runs_are_balanced_by_cost_and_not_by_count() -> None:
    costs = np.concatenate([np.full(100, 9.0), np.full(900, 1.0)])
    sums = [costs[low:high].sum() for low, high in balanced(costs, 3)]
    np.testing.assert_allclose(sums, 600, atol=9)
