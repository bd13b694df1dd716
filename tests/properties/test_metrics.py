"""Measures against loops over rows and ranks, and what a perfect ranking must reach."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.training.synthetic import matrix
from training.metrics import PADDING, constant_ranking, inverse_propensities, report

Truth = list[set[int]]


@st.composite
def rankings(draw: st.DrawFn, *, least_true: int = 0) -> tuple[NDArray[np.int64], Truth, NDArray[np.float64]]:
    """Ranked labels (N, K), padded at the end of some rows; true labels; inverse propensities (L,)."""
    labels = draw(st.integers(2, 9))
    k = draw(st.integers(1, labels))
    rows = draw(st.integers(1, 6))
    ranked_NK = np.full((rows, k), PADDING)
    for row in range(rows):
        found = draw(st.permutations(range(labels)))[: draw(st.integers(0, k))]
        ranked_NK[row, : len(found)] = found
    truth = [draw(st.sets(st.integers(0, labels - 1), min_size=least_true)) for _ in range(rows)]
    gains = draw(st.lists(st.floats(1, 50), min_size=labels, max_size=labels))
    return ranked_NK, truth, np.array(gains)


def measure(ranked_NK: NDArray[np.int64], truth: Truth, gains: NDArray[np.float64], k: int) -> dict[str, float]:
    targets = matrix([dict.fromkeys(labels, 0.5) for labels in truth], len(gains))
    return report(ranked_NK, targets, gains, [k])


def naive(ranked_NK: NDArray[np.int64], truth: Truth, gains: NDArray[np.float64], k: int) -> dict[str, float]:
    """The definitions, row by row; padding is -1 and never true."""
    lists = [[int(label) for label in row[:k]] for row in ranked_NK]
    pairs = list(zip(lists, truth, strict=True))
    hits = [[label in true for label in found] for found, true in pairs]
    coverable = set().union(*truth)
    covered = {label for found, true in pairs for label in found if label in true}
    earned = sum(gains[label] for found, true in pairs for label in found if label in true)
    possible = sum(sum(sorted((gains[label] for label in true), reverse=True)[:k]) for true in truth)
    discounts = [1 / math.log2(rank + 2) for rank in range(k)]
    ndcg = [
        sum(discount for hit, discount in zip(row, discounts, strict=True) if hit) / sum(discounts[: len(true)])
        if true
        else 0.0
        for row, true in zip(hits, truth, strict=True)
    ]
    recall = [sum(row) / len(true) if true else 1.0 for row, true in zip(hits, truth, strict=True)]
    r_precision = [sum(row) / min(k, len(true)) if true else 0.0 for row, true in zip(hits, truth, strict=True)]
    return {
        f"P@{k}": 100 * float(np.mean([sum(row) / k for row in hits])),
        f"nDCG@{k}": 100 * float(np.mean(ndcg)),
        f"PSP@{k}": 100 * float(earned / possible) if possible else 0.0,
        f"R@{k}": 100 * float(np.mean(recall)),
        f"RP@{k}": 100 * float(np.mean(r_precision)),
        f"coverage@{k}": 100 * len(covered) / len(coverable) if coverable else 0.0,
    }


@given(example=rankings())
def test_equals_the_definitions(example: tuple[NDArray[np.int64], Truth, NDArray[np.float64]]) -> None:
    ranked_NK, truth, gains = example
    for k in range(1, ranked_NK.shape[1] + 1):
        assert measure(ranked_NK, truth, gains, k) == pytest.approx(naive(ranked_NK, truth, gains, k), abs=1e-9)


@given(example=rankings(least_true=1))
def test_a_perfect_ranking_reaches_100(example: tuple[NDArray[np.int64], Truth, NDArray[np.float64]]) -> None:
    _, truth, gains = example
    labels = len(gains)
    by_gain: Callable[[int], float] = lambda label: -gains[label]  # noqa: E731
    orders = [sorted(true, key=by_gain) + sorted(set(range(labels)) - true) for true in truth]
    for k in (1, 2, labels):
        found = measure(np.array(orders), truth, gains, k)
        for name in ("nDCG", "PSP", "RP"):
            assert found[f"{name}@{k}"] == pytest.approx(100)
    whole = measure(np.array(orders), truth, gains, labels)
    assert whole[f"R@{labels}"] == pytest.approx(100)
    assert whole[f"coverage@{labels}"] == pytest.approx(100)


@given(example=rankings(), copies=st.integers(2, 3))
def test_averages_do_not_change_when_every_row_is_repeated(
    example: tuple[NDArray[np.int64], Truth, NDArray[np.float64]], copies: int
) -> None:
    ranked_NK, truth, gains = example
    once = measure(ranked_NK, truth, gains, 1)
    assert measure(np.tile(ranked_NK, (copies, 1)), truth * copies, gains, 1) == pytest.approx(once)


@given(
    counts=st.lists(st.integers(0, 10**6), min_size=1, max_size=8),
    rows=st.integers(3, 10**7),
    a=st.floats(0.4, 0.7),
    b=st.floats(0.3, 3),
)
def test_inverse_propensities_follow_their_formula(counts: list[int], rows: int, a: float, b: float) -> None:
    c = (math.log(rows) - 1) * (b + 1) ** a
    expected = [1 + c * math.exp(-a * math.log(count + b)) for count in counts]
    found = inverse_propensities(np.array(counts), rows, a, b)
    assert found == pytest.approx(expected)
    assert (found >= 1).all()


@given(counts=st.lists(st.integers(0, 5), min_size=1, max_size=8), data=st.data())
def test_constant_ranking_is_by_frequency_then_row(counts: list[int], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(counts)))
    expected = sorted(range(len(counts)), key=lambda label: (-counts[label], label))[:k]
    assert constant_ranking(np.array(counts), 3, k).tolist() == [expected] * 3
