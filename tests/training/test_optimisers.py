"""Adagrad by rows against a loop in float64; a sparse gradient moves the weights as the dense one of equal values."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.sparse import check_sparse_tensor_invariants

from training.optimisers import RowAdagrad

ROWS, COLUMNS = 5, 3
# Rows that a step touches, with multiplicity, and their gradients' sizes.
steps = st.lists(st.lists(st.tuples(st.integers(0, ROWS - 1), st.floats(-4, 4)), max_size=6), min_size=1, max_size=4)
Steps = list[list[tuple[int, float]]]


def gradients(step: list[tuple[int, float]]) -> tuple[np.ndarray, np.ndarray]:
    rows = np.array([row for row, _ in step], dtype=np.int64)
    values = np.array([[size, 0.5 * size, 1.0] for _, size in step]).reshape(-1, COLUMNS)
    return rows, values


def expected(plan: Steps, rate: float) -> np.ndarray:
    """The definition: each row's step is divided by the root of the sum of its gradients' mean squares."""
    weight = np.arange(ROWS * COLUMNS, dtype=np.float64).reshape(ROWS, COLUMNS)
    squares = np.zeros(ROWS)
    for step in plan:
        dense = np.zeros((ROWS, COLUMNS))
        np.add.at(dense, *gradients(step))
        squares += (dense**2).mean(axis=1)
        weight -= rate * dense / (np.sqrt(squares) + 1e-10)[:, None]
    return weight


def moved(plan: Steps, rate: float, *, sparse: bool) -> np.ndarray:
    weight = nn.Parameter(torch.arange(ROWS * COLUMNS, dtype=torch.float32).reshape(ROWS, COLUMNS))
    optimiser = RowAdagrad([{"params": [weight], "lr": rate}])
    for step in plan:
        rows, values = (torch.from_numpy(array) for array in gradients(step))
        with check_sparse_tensor_invariants(enable=False):
            gradient = torch.sparse_coo_tensor(rows[None], values.float(), (ROWS, COLUMNS))
        weight.grad = gradient if sparse else gradient.to_dense()
        optimiser.step()
    return weight.detach().numpy()


@pytest.mark.parametrize("sparse", [True, False])
@given(plan=steps, rate=st.sampled_from([0.01, 0.5]))
def test_steps_are_those_of_the_definition(plan: Steps, rate: float, sparse: bool) -> None:
    np.testing.assert_allclose(moved(plan, rate, sparse=sparse), expected(plan, rate), rtol=1e-4, atol=1e-5)


def test_the_first_step_is_the_rate_whatever_the_gradients_size() -> None:
    weight = nn.Parameter(torch.zeros(2, 4))
    weight.grad = torch.tensor([[1e-6] * 4, [1e3] * 4])
    RowAdagrad([{"params": [weight], "lr": 0.25}]).step()
    torch.testing.assert_close(weight.detach(), torch.full((2, 4), -0.25), rtol=1e-3, atol=0)


def test_the_state_is_one_number_a_row() -> None:
    weight = nn.Parameter(torch.zeros(2, 4))
    weight.grad = torch.ones(2, 4)
    optimiser = RowAdagrad([{"params": [weight], "lr": 0.25}])
    optimiser.step()
    assert [value.shape for state in optimiser.state_dict()["state"].values() for value in state.values()] == [(2,)]


def test_weights_without_a_gradient_stay() -> None:
    weight = nn.Parameter(torch.ones(2, 4))
    RowAdagrad([{"params": [weight], "lr": 0.25}]).step()
    assert (weight == 1).all()
