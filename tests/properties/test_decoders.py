"""Decoders against their definitions in float64, for any sizes."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from service.bundle.manifest import Activation, Aggregation
from tests.reference import assert_best
from tests.service.decoders import test_declare as declare
from tests.service.decoders import test_mach as mach

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
