"""Decoders against their definitions in float64, for any sizes."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array

from service.bundle.manifest import Activation, Aggregation
from tests.reference import assert_best
from tests.service.decoders import test_declare as declare
from tests.service.decoders import test_mach as mach
from training.voting import merge_duplicates

SIZES = st.integers(1, 12)
SEEDS = st.integers(0, 2**32 - 1)


@given(
    seed=SEEDS,
    queries=st.integers(1, 5),
    repetitions=SIZES,
    buckets=st.integers(2, 20),
    labels=st.integers(1, 200),
    k=st.integers(1, 30),
    aggregation=st.sampled_from(mach.AGGREGATIONS),
    activation=st.sampled_from(mach.ACTIVATIONS),
)
def test_mach(
    seed: int,
    queries: int,
    repetitions: int,
    buckets: int,
    labels: int,
    k: int,
    aggregation: Aggregation,
    activation: Activation,
) -> None:
    rng = np.random.default_rng(seed)
    logits = (10 * rng.standard_normal((queries, repetitions, buckets))).astype(np.float32)
    buckets_RL = rng.integers(0, buckets, (repetitions, labels)).astype(np.uint8)
    top = mach.decoder(buckets_RL, buckets, aggregation, activation).decode({"bucket_logits": logits}, k)
    assert_best(top, mach.reference(logits, buckets_RL, aggregation, activation), k)


@given(
    seed=SEEDS,
    queries=st.integers(1, 5),
    rows=SIZES,
    labels=SIZES,
    rank=SIZES,
    neighbours=st.integers(1, 15),
    k=st.integers(1, 15),
)
def test_declare(seed: int, queries: int, rows: int, labels: int, rank: int, neighbours: int, k: int) -> None:
    """Small integers: similarities and votes are exact, so ties are real and must go by row."""
    rng = np.random.default_rng(seed)
    votes_NL = rng.integers(0, 3, (rows, labels)).astype(np.float32)
    factors_LC = rng.integers(-2, 3, (labels, rank)).astype(np.float32)
    embeddings_QC = rng.integers(-2, 3, (queries, rank)).astype(np.float32)
    top = declare.decoder(votes_NL, factors_LC, neighbours).decode({"embedding": embeddings_QC}, k)
    expected = declare.reference(
        embeddings_QC.astype(float), votes_NL.astype(float), factors_LC.astype(float), neighbours
    )
    best = declare.best_labels(expected, k)
    np.testing.assert_array_equal(top.ids_QK, best)
    np.testing.assert_array_equal(top.scores_QK, np.take_along_axis(expected, best, axis=1))


@given(
    seed=SEEDS,
    queries=st.integers(1, 5),
    rows=st.integers(1, 30),
    labels=st.integers(1, 4),
    rank=SIZES,
    neighbours=st.integers(1, 15),
    temperature=st.sampled_from([None, 2.0]),
)
def test_declare_of_merged_rows(
    seed: int, queries: int, rows: int, labels: int, rank: int, neighbours: int, temperature: float | None
) -> None:
    """Rows stored once with their number answer as all rows do, equal ones side by side at the place of the first."""
    rng = np.random.default_rng(seed)
    targets_NL = csr_array(rng.integers(0, 2, (rows, labels)).astype(np.float32))
    factors_LC = rng.integers(-2, 3, (labels, rank)).astype(np.float32)
    embeddings_QC = rng.integers(-2, 3, (queries, rank)).astype(np.float32)
    votes_GL, groups_N = merge_duplicates(targets_NL)
    counts_G = np.bincount(groups_N).astype(np.int32)
    decoder = declare.decoder(votes_GL.toarray(), factors_LC, neighbours, counts_G=counts_G, temperature=temperature)
    ordered_NL = targets_NL.toarray()[np.argsort(groups_N, kind="stable")].astype(float)
    expected = declare.reference(
        embeddings_QC.astype(float), ordered_NL, factors_LC.astype(float), neighbours, temperature=temperature
    )
    top = decoder.decode({"embedding": embeddings_QC}, labels)
    assert_best(top, expected, labels)
    if temperature is None:
        np.testing.assert_array_equal(top.ids_QK, declare.best_labels(expected, labels))
