from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from numpy.typing import NDArray

from service.bundle import layout
from service.bundle.manifest import Activation, Aggregation, HashSection, MachSection
from service.errors import EngineFailed
from service.resident import best, mach
from service.resident.mach import SUMMED, ResidentMach
from service.search.topk import TopK
from tests.reference import assert_best
from tests.service.decoders.test_mach import reference
from tests.service.resident.devices import DEVICES, on


def problem(
    queries: int, repetitions: int, buckets: int, labels: int
) -> tuple[NDArray[np.float32], NDArray[np.unsignedinteger]]:
    rng = np.random.default_rng(labels)
    logits_QRB = (4 * rng.standard_normal((queries, repetitions, buckets))).astype(np.float32)
    return logits_QRB, rng.integers(0, buckets, (labels, repetitions)).astype(layout.bucket_dtype(buckets))


def decoder(buckets_LR: NDArray[np.unsignedinteger], buckets: int, device: str, *of_scores: str) -> ResidentMach:
    aggregation, activation = of_scores or ("sum_logits", "sigmoid")
    section = MachSection.model_validate(
        {
            "repetitions": buckets_LR.shape[1],
            "buckets": buckets,
            "aggregation": aggregation,
            "activation": activation,
            "hash": HashSection(seed=0),
        }
    )
    return ResidentMach(section, buckets_LR, device)


def found(decoder: ResidentMach, logits_QRB: NDArray[np.float32], k: int, device: str = "cpu") -> TopK:
    return decoder.decode({"bucket_logits": on(device, logits_QRB)}, k)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("activation", get_args(Activation))
@pytest.mark.parametrize("aggregation", SUMMED)
@pytest.mark.parametrize("repetitions", [1, 8, 9, 32])
def test_sums_agree_with_their_definition(
    repetitions: int, aggregation: Aggregation, activation: Activation, device: str
) -> None:
    """Repetitions that one kernel adds up, one more, and many."""
    logits_QRB, buckets_LR = problem(5, repetitions, 300, 401)
    top = found(decoder(buckets_LR, 300, device, aggregation, activation), logits_QRB, 9, device)
    assert_best(top, reference(logits_QRB, buckets_LR.T, aggregation, activation), 9)


@pytest.mark.parametrize("device", DEVICES)
def test_the_best_in_groups_are_the_best(device: str) -> None:
    logits_QRB, buckets_LR = problem(3, 10, 60, 140_000)
    top = found(decoder(buckets_LR, 60, device), logits_QRB, 100, device)
    assert_best(top, reference(logits_QRB, buckets_LR.T, "sum_logits", "sigmoid"), 100)


def test_rows_that_fill_up_are_no_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(best, "SORTED", 4)
    logits_QRB, buckets_LR = problem(2, 4, 16, 101)
    top = found(decoder(buckets_LR, 16, "cpu"), -np.abs(logits_QRB), 200)
    assert [sorted(row) for row in top.ids_QK.tolist()] == [list(range(101))] * 2
    assert np.isfinite(top.scores_QK).all()


def test_queries_in_turn_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    logits_QRB, buckets_LR = problem(7, 4, 16, 300)
    at_once = found(decoder(buckets_LR, 16, "cpu"), logits_QRB, 10)
    monkeypatch.setattr(mach, "MOST_SCORES", 2 * 300)
    in_turn = found(decoder(buckets_LR, 16, "cpu"), logits_QRB, 10)
    np.testing.assert_array_equal(in_turn.ids_QK, at_once.ids_QK)
    np.testing.assert_array_equal(in_turn.scores_QK, at_once.scores_QK)


@pytest.mark.parametrize("device", DEVICES)
def test_labels_with_equal_buckets_come_in_the_order_of_their_rows(device: str) -> None:
    logits_QRB, buckets_LR = problem(3, 4, 16, 40)
    top = found(decoder(np.repeat(buckets_LR, 5, axis=0), 16, device), logits_QRB, 12, device)
    for row in top.ids_QK.tolist():
        assert [label % 5 for label in row] == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_logits_that_are_not_finite_are_an_error(value: float, device: str) -> None:
    logits_QRB, buckets_LR = problem(3, 4, 16, 40)
    logits_QRB[2, 3, 7] = value
    with pytest.raises(EngineFailed, match="the encoder's output bucket_logits is NaN or infinite for one of 3"):
        found(decoder(buckets_LR, 16, device), logits_QRB, 5, device)
