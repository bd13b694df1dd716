"""ASTRA's pool stands for all labels: loss and gradient of full cross-entropy in expectation, whatever is mined."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from training import losses
from training.data.batches import Positives
from training.negatives.astra import WeightedPool, draw_pool
from training.negatives.in_batch import pool_targets

LABELS, QUERIES, WIDTH = 2000, 12, 8
BIAS = -6.0  # few labels score high, as in a trained model
NO_LABELS = torch.empty(0, dtype=torch.int64)


def positives_of(rows: list[list[int]]) -> Positives:
    queries = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    labels = torch.tensor([label for row in rows for label in row], dtype=torch.int64)
    return Positives(torch.from_numpy(queries), labels, torch.ones(len(labels)))


label_sets = st.lists(st.lists(st.integers(0, 39), unique=True, max_size=4), min_size=1, max_size=5)


@settings(max_examples=200)
@given(
    rows=label_sets, hard=st.lists(st.integers(0, 39), max_size=8), uniform=st.integers(1, 60), seed=st.integers(0, 99)
)
def test_a_pool_holds_what_it_must_and_its_weights_count_all_labels(
    rows: list[list[int]], hard: list[int], uniform: int, seed: int
) -> None:
    torch.manual_seed(seed)
    positives = positives_of(rows)
    pool = draw_pool(positives, len(rows), torch.tensor(hard, dtype=torch.int64), uniform, 40)
    labels = pool.labels_P.tolist()
    exact = {label for row in rows for label in row} | set(hard)
    assert labels == sorted(set(labels))
    assert exact <= set(labels)
    assert all(weight == 1 for label, weight in zip(labels, pool.weights_P, strict=True) if label in exact)
    assert pool.weights_P.sum().item() == pytest.approx(40, rel=1e-5)
    if uniform >= 40 - len(exact):
        assert labels == list(range(40))
        assert (pool.weights_P == 1).all()
    assert torch.equal(pool.targets_QP, pool_targets(positives, len(rows), pool.labels_P))
    assert pool.targets_QP.sum().item() == sum(map(len, rows))


@pytest.fixture(scope="module")
def problem() -> tuple[torch.Tensor, torch.Tensor, Positives]:
    """Hidden vectors, classifiers that score some negatives high, and true labels."""
    generator = torch.Generator().manual_seed(0)
    hidden_QD = torch.randn(QUERIES, WIDTH, generator=generator)
    classifier_LD = torch.randn(LABELS, WIDTH, generator=generator) - 1.0
    labels = torch.randint(LABELS, (QUERIES, 3), generator=generator)
    return hidden_QD, classifier_LD, positives_of(labels.tolist())


def full(problem: tuple[torch.Tensor, torch.Tensor, Positives]) -> tuple[float, torch.Tensor]:
    """The loss of all labels, and its gradient with respect to the hidden vectors."""
    every = torch.arange(LABELS)
    pool = WeightedPool(every, pool_targets(problem[2], QUERIES, every), torch.ones(LABELS))
    return loss_and_gradient(problem, pool)


def loss_and_gradient(
    problem: tuple[torch.Tensor, torch.Tensor, Positives], pool: WeightedPool
) -> tuple[float, torch.Tensor]:
    hidden_QD = problem[0].clone().requires_grad_()
    logits_QP = hidden_QD @ problem[1][pool.labels_P].T + BIAS
    loss = losses.binary_cross_entropy(logits_QP, pool.targets_QP, pool.weights_P)
    loss.backward()  # type: ignore[no-untyped-call]
    assert hidden_QD.grad is not None
    return loss.item(), hidden_QD.grad


def hardest(problem: tuple[torch.Tensor, torch.Tensor, Positives], per_query: int) -> torch.Tensor:
    scores_QL = problem[0] @ problem[1].T
    scores_QL[problem[2].queries, problem[2].labels] = -torch.inf
    return scores_QL.topk(per_query, dim=1).indices.flatten()


DRAWS = 1000


def sampled(
    problem: tuple[torch.Tensor, torch.Tensor, Positives], hard: torch.Tensor
) -> tuple[np.ndarray, torch.Tensor]:
    """Losses of many draws, and the mean gradient."""
    torch.manual_seed(1)
    draws = [loss_and_gradient(problem, draw_pool(problem[2], QUERIES, hard, 50, LABELS)) for _ in range(DRAWS)]
    return np.array([loss for loss, _ in draws]), torch.stack([gradient for _, gradient in draws]).mean(dim=0)


@pytest.mark.parametrize("per_query", [0, 5], ids=["uniform", "stratified"])
def test_loss_and_gradient_are_those_of_all_labels_in_expectation(
    problem: tuple[torch.Tensor, torch.Tensor, Positives], per_query: int
) -> None:
    hard = hardest(problem, per_query) if per_query else NO_LABELS
    expected_loss, expected_gradient = full(problem)
    drawn, gradient = sampled(problem, hard)
    assert abs(drawn.mean() - expected_loss) < 4 * drawn.std() / DRAWS**0.5
    relative = ((gradient - expected_gradient).norm() / expected_gradient.norm()).item()
    assert relative < 0.05


def test_hard_negatives_lower_the_variance(problem: tuple[torch.Tensor, torch.Tensor, Positives]) -> None:
    uniform, _ = sampled(problem, NO_LABELS)
    stratified, _ = sampled(problem, hardest(problem, 20))
    assert stratified.std() < 0.7 * uniform.std()


def test_hard_negatives_alone_are_biased(problem: tuple[torch.Tensor, torch.Tensor, Positives]) -> None:
    """What the uniform part is for: without it loss and gradient are others."""
    expected_loss, expected_gradient = full(problem)
    labels_P = torch.unique(torch.cat([problem[2].labels, hardest(problem, 5)]))
    pool = WeightedPool(labels_P, pool_targets(problem[2], QUERIES, labels_P), torch.ones(len(labels_P)))
    loss, gradient = loss_and_gradient(problem, pool)
    assert loss < 0.8 * expected_loss
    assert ((gradient - expected_gradient).norm() / expected_gradient.norm()).item() > 0.1
