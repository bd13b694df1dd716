from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from numpy.typing import NDArray

from service.bundle.manifest import Activation, Aggregation, HashSection, MachSection
from service.decoders import mach
from service.decoders.mach import MachDecoder, bucket_scores
from service.search import topk
from tests.bundles import inverted_lists
from tests.reference import assert_best

AGGREGATIONS: tuple[Aggregation, ...] = get_args(Aggregation)
ACTIVATIONS: tuple[Activation, ...] = get_args(Activation)


def decoder(
    buckets_RL: NDArray[np.integer], buckets: int, aggregation: Aggregation, activation: Activation
) -> MachDecoder:
    section = MachSection(
        repetitions=len(buckets_RL),
        buckets=buckets,
        aggregation=aggregation,
        activation=activation,
        hash=HashSection(seed=0),
    )
    buckets_LR = np.ascontiguousarray(buckets_RL.T)
    return MachDecoder(section, buckets_LR, *inverted_lists(buckets_LR, buckets))


def reference(
    logits_QRB: NDArray[np.float32], buckets_RL: NDArray[np.integer], aggregation: Aggregation, activation: Activation
) -> NDArray[np.float64]:
    """Scores of all labels by the definitions, in float64."""
    logits = logits_QRB.astype(np.float64)
    B = logits.shape[2]
    if activation == "softmax":
        exponentials = np.exp(logits - logits.max(axis=2, keepdims=True))
        probabilities = exponentials / exponentials.sum(axis=2, keepdims=True)
    else:
        probabilities = 1 / (1 + np.exp(-logits))
    source = logits if aggregation == "sum_logits" else probabilities
    gathered_QRL = np.stack([[source[q, r, buckets_RL[r]] for r in range(len(buckets_RL))] for q in range(len(logits))])
    match aggregation:
        case "sum_logits":
            return gathered_QRL.sum(axis=1)
        case "mean_prob":
            return gathered_QRL.mean(axis=1)
        case "unbiased":
            return B / (B - 1) * (gathered_QRL.mean(axis=1) - 1 / B)
        case "min":
            return gathered_QRL.min(axis=1)
        case "median":
            return np.median(gathered_QRL, axis=1)


def problem(queries: int, repetitions: int, buckets: int, labels: int) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    rng = np.random.default_rng(queries + repetitions + buckets + labels)
    logits = (4 * rng.standard_normal((queries, repetitions, buckets))).astype(np.float32)
    return logits, rng.integers(0, buckets, (repetitions, labels)).astype(np.uint8)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("repetitions", [1, 4, 5])
@pytest.mark.parametrize("queries", [1, 7])
def test_every_aggregation_agrees_with_its_definition(
    queries: int, repetitions: int, aggregation: Aggregation, activation: Activation
) -> None:
    logits, buckets_RL = problem(queries, repetitions, 11, 101)
    top = decoder(buckets_RL, 11, aggregation, activation).decode({"bucket_logits": logits}, 9)
    assert_best(top, reference(logits, buckets_RL, aggregation, activation), 9)


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_blocks_change_nothing(aggregation: Aggregation, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of a few labels, and parts that are selected from one by one."""
    logits, buckets_RL = problem(3, 4, 11, 101)
    whole = decoder(buckets_RL, 11, aggregation, "sigmoid").decode({"bucket_logits": logits}, 20)
    monkeypatch.setattr(mach, "BLOCK_SCORES", 24)
    monkeypatch.setattr(topk, "DENSE_SCORES", 90)
    parts = decoder(buckets_RL, 11, aggregation, "sigmoid").decode({"bucket_logits": logits}, 20)
    np.testing.assert_array_equal(parts.ids_QK, whole.ids_QK)
    np.testing.assert_array_equal(parts.scores_QK, whole.scores_QK)


def test_labels_that_share_all_buckets_tie_by_row() -> None:
    logits, buckets_RL = problem(2, 3, 5, 4)
    twins = np.tile(buckets_RL, 3)
    top = decoder(twins, 5, "sum_logits", "sigmoid").decode({"bucket_logits": logits}, 12)
    for ids, scores in zip(top.ids_QK, top.scores_QK, strict=True):
        for score in set(scores.tolist()):
            tied = ids[scores == score]
            assert tied.tolist() == sorted(tied)
            assert len(tied) % 3 == 0


def test_mean_and_unbiased_estimates_rank_alike() -> None:
    logits, buckets_RL = problem(4, 8, 13, 60)
    mean = decoder(buckets_RL, 13, "mean_prob", "softmax").decode({"bucket_logits": logits}, 60)
    unbiased = decoder(buckets_RL, 13, "unbiased", "softmax").decode({"bucket_logits": logits}, 60)
    np.testing.assert_array_equal(mean.ids_QK, unbiased.ids_QK)
    np.testing.assert_allclose(unbiased.scores_QK, 13 / 12 * (mean.scores_QK - 1 / 13), rtol=1e-4, atol=1e-6)


def test_extreme_logits_neither_overflow_nor_lose_their_digits() -> None:
    logits = np.array([[[-80.0, -30.0, 0.0, 30.0, 500.0, -500.0]]], dtype=np.float32)
    probabilities = bucket_scores(logits, "sigmoid", "min")[0, 0]
    expected = np.exp(-np.logaddexp(0, -logits[0, 0].astype(np.float64)))
    np.testing.assert_allclose(probabilities, expected, rtol=1e-5, atol=1e-40)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32])
def test_every_stored_type_of_buckets_decodes_alike(dtype: type[np.integer]) -> None:
    logits, buckets_RL = problem(2, 3, 200, 50)
    top = decoder(buckets_RL.astype(dtype), 200, "sum_logits", "sigmoid").decode({"bucket_logits": logits}, 5)
    assert_best(top, reference(logits, buckets_RL, "sum_logits", "sigmoid"), 5)
