"""Losses against straightforward float64 references, and where naive forms break: huge scores, empty rows."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from torch import Tensor

from training import losses

Matrix = NDArray[np.float64]

scores = st.floats(-30, 30, width=32)
relevances = st.one_of(st.just(0.0), st.floats(0.125, 1, width=32))
shapes = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=6)


@st.composite
def scores_and_targets(draw: st.DrawFn) -> tuple[Matrix, Matrix]:
    shape = draw(shapes)
    return draw(hnp.arrays(np.float64, shape, elements=scores)), draw(
        hnp.arrays(np.float64, shape, elements=relevances)
    )


def softplus(value: float) -> float:
    return value + math.log1p(math.exp(-value)) if value > 0 else math.log1p(math.exp(value))


def log_sum_exp(values: list[float]) -> float:
    peak = max(values)
    return peak + math.log(sum(math.exp(value - peak) for value in values))


def naive_binary_cross_entropy(logits: Matrix, targets: Matrix) -> float:
    cells = zip(logits.ravel(), targets.ravel(), strict=True)
    return sum(t * softplus(-s) + (1 - t) * softplus(s) for s, t in cells) / len(logits)


def naive_decoupled_softmax(logits: Matrix, targets: Matrix) -> float:
    """Per row: the mean of -log(e^p / (e^p + sum of e^n)) over positives p, weighted by their targets."""
    rows = []
    for scores_P, targets_P in zip(logits.tolist(), targets.tolist(), strict=True):
        negatives = [s for s, t in zip(scores_P, targets_P, strict=True) if t == 0]
        positives = [(s, t) for s, t in zip(scores_P, targets_P, strict=True) if t > 0]
        if positives:
            terms = [t * (log_sum_exp([s, *negatives]) - s) for s, t in positives]
            rows.append(sum(terms) / sum(t for _, t in positives))
    return sum(rows) / len(rows) if rows else 0.0


def naive_supervised_contrastive(logits: Matrix, targets: Matrix) -> float:
    """Per row: the mean of -log(e^p / sum of e^a over all a) over positives p, weighted by their targets."""
    rows = []
    for scores_P, targets_P in zip(logits.tolist(), targets.tolist(), strict=True):
        if any(targets_P):
            terms = [t * (log_sum_exp(scores_P) - s) for s, t in zip(scores_P, targets_P, strict=True)]
            rows.append(sum(terms) / sum(targets_P))
    return sum(rows) / len(rows) if rows else 0.0


NAIVE: dict[str, Callable[[Matrix, Matrix], float]] = {
    "decoupled_softmax": naive_decoupled_softmax,
    "supcon": naive_supervised_contrastive,
    "bce": lambda logits, targets: naive_binary_cross_entropy(logits, np.minimum(targets, 1)),
}


@pytest.mark.parametrize(
    ("loss", "naive"),
    [
        (losses.binary_cross_entropy, naive_binary_cross_entropy),
        *((losses.POOL_LOSSES[name], naive) for name, naive in NAIVE.items()),
    ],
)
@given(example=scores_and_targets())
def test_equals_its_reference(
    loss: Callable[[Tensor, Tensor], Tensor], naive: Callable[[Matrix, Matrix], float], example: tuple[Matrix, Matrix]
) -> None:
    logits, targets = example
    expected = naive(logits, targets)
    exact = loss(torch.from_numpy(logits), torch.from_numpy(targets)).item()
    assert exact == pytest.approx(expected, rel=1e-9, abs=1e-9)
    single = loss(torch.from_numpy(logits).float(), torch.from_numpy(targets).float()).item()
    assert single == pytest.approx(expected, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("name", get_args(losses.PoolLoss))
@given(example=scores_and_targets())
def test_the_loss_of_a_pool_is_the_sum_of_what_it_names(
    name: losses.PoolLoss, symmetric: bool, example: tuple[Matrix, Matrix]
) -> None:
    logits, targets = example[0], 2 * example[1]  # relevances beyond 1, too
    expected = sum(NAIVE[part](logits, targets) for part in name.split("+"))
    if symmetric:
        expected = (expected + sum(NAIVE[part](logits.T, targets.T) for part in name.split("+"))) / 2
    found = losses.pool_loss(name, torch.from_numpy(logits), torch.from_numpy(targets), symmetric=symmetric)
    assert found.item() == pytest.approx(expected, rel=1e-9, abs=1e-9)


@given(
    logits=hnp.arrays(np.float64, st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 5)), elements=scores),
    data=st.data(),
)
def test_softmax_cross_entropy_equals_its_reference(logits: NDArray[np.float64], data: st.DataObject) -> None:
    rows, repetitions, buckets = logits.shape
    classes = data.draw(hnp.arrays(np.int64, (rows, repetitions), elements=st.integers(0, buckets - 1)))
    expected = sum(
        log_sum_exp(logits[row, repetition].tolist()) - logits[row, repetition, classes[row, repetition]]
        for row in range(rows)
        for repetition in range(repetitions)
    )
    found = losses.softmax_cross_entropy(torch.from_numpy(logits), torch.from_numpy(classes)).item()
    assert found == pytest.approx(expected / rows, rel=1e-9, abs=1e-9)


@given(shape=shapes, data=st.data())
def test_distances_equal_their_references(shape: tuple[int, int], data: st.DataObject) -> None:
    left = data.draw(hnp.arrays(np.float64, shape, elements=st.floats(0.5, 9)))
    right = data.draw(hnp.arrays(np.float64, shape, elements=st.floats(0.5, 9)))
    squares = sum((x - y) ** 2 for x, y in zip(left.ravel(), right.ravel(), strict=True))
    pairs = [(x, y) for x, y in zip(left, right, strict=True)]
    cosines = [float(x @ y) / math.sqrt(float(x @ x) * float(y @ y)) for x, y in pairs]
    tensors = torch.from_numpy(left), torch.from_numpy(right)
    assert losses.squared_error(*tensors).item() == pytest.approx(squares / shape[0], abs=1e-9)
    assert losses.cosine_distance(*tensors).item() == pytest.approx(1 - sum(cosines) / shape[0], abs=1e-9)


def test_decoupled_softmax_by_hand() -> None:
    # Positives 0 (target 1) and ln 2 (target 1/2) against one negative 0: ln 2 and ln(3/2), weighted 2 : 1.
    logits = torch.tensor([[0.0, math.log(2), 0.0]], dtype=torch.float64)
    targets = torch.tensor([[1.0, 0.5, 0.0]], dtype=torch.float64)
    expected = (2 * math.log(2) + math.log(1.5)) / 3
    assert losses.decoupled_softmax(logits, targets).item() == pytest.approx(expected, rel=1e-12)


def test_supervised_contrastive_by_hand() -> None:
    # The pool sums to 1 + 2 + 1: positives 0 (target 1) and ln 2 (target 1/2) lose ln 4 and ln 2, weighted 2 : 1.
    logits = torch.tensor([[0.0, math.log(2), 0.0]], dtype=torch.float64)
    targets = torch.tensor([[1.0, 0.5, 0.0]], dtype=torch.float64)
    expected = (2 * math.log(4) + math.log(2)) / 3
    assert losses.supervised_contrastive(logits, targets).item() == pytest.approx(expected, rel=1e-12)


def test_a_positive_is_pushed_down_by_another_positive_in_the_contrastive_loss_only() -> None:
    logits = torch.tensor([[1.0, 5.0, -1.0]], requires_grad=True)
    losses.decoupled_softmax(logits, torch.tensor([[1.0, 1.0, 0.0]])).backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert (logits.grad[0, :2] < 0).all()
    assert logits.grad[0, 2] > 0
    logits.grad = None
    losses.supervised_contrastive(logits, torch.tensor([[1.0, 1.0, 0.0]])).backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert logits.grad[0, 0] < 0 < logits.grad[0, 1]


@pytest.mark.parametrize("name", NAIVE)
@pytest.mark.parametrize("size", [30.0, 1e4, -1e4])
@pytest.mark.parametrize(
    "targets",
    [
        pytest.param([[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]], id="no row has a positive"),
        pytest.param([[0.0, 0.0, 0.0], [1.0, 0.0, 0.5]], id="one row has none"),
        pytest.param([[1.0, 1.0, 1.0], [0.25, 1.0, 1.0]], id="no row has a negative"),
        pytest.param([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]], id="one row has none to push away"),
        pytest.param([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]], id="nothing beside something only"),
    ],
)
def test_extreme_rows_give_finite_losses_and_gradients(name: str, size: float, targets: list[list[float]]) -> None:
    logits = (size * torch.tensor([[1.0, -1.0, 0.5], [-1.0, 1.0, 0.25]])).requires_grad_()
    loss = losses.POOL_LOSSES[name](logits, torch.tensor(targets))
    loss.backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()
    assert loss.item() == pytest.approx(NAIVE[name](logits.detach().double().numpy(), np.array(targets)))
    for row, row_targets in enumerate(targets):
        without_positive, without_negative = not any(row_targets), all(row_targets)
        if (name != "bce" and without_positive) or (name == "decoupled_softmax" and without_negative):
            assert not logits.grad[row].any()


@pytest.mark.parametrize("name", NAIVE)
@settings(max_examples=25)
@given(example=scores_and_targets())
def test_gradients_are_those_of_the_values(name: str, example: tuple[Matrix, Matrix]) -> None:
    logits = torch.from_numpy(example[0]).clamp(-3, 3).requires_grad_()
    targets = torch.from_numpy(example[1])
    assert torch.autograd.gradcheck(lambda values: losses.POOL_LOSSES[name](values, targets), logits)


@pytest.mark.parametrize("loss", [losses.binary_cross_entropy, losses.squared_error, losses.cosine_distance])
def test_other_losses_survive_huge_scores(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    outputs = torch.tensor([[1e4, -1e4], [0.0, 0.0]], requires_grad=True)
    value = loss(outputs, torch.tensor([[0.0, 1.0], [0.0, 0.0]]))
    value.backward()  # type: ignore[no-untyped-call]
    assert outputs.grad is not None
    assert torch.isfinite(value)
    assert torch.isfinite(outputs.grad).all()
