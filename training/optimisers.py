"""What moves the weights: AdamW the layers, Adagrad by rows the tables of which a step touches few rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

TINY = 1e-10


class RowAdagrad(Optimizer):
    """Adagrad with one rate for each row of a matrix, so that rows that are seldom touched learn as fast as the others.

    Duchi, Hazan and Singer, "Adaptive Subgradient Methods", JMLR 2011; by rows as recommender systems do it for
    embedding tables (Naumov et al., arXiv 1906.00091). A step with a sparse gradient costs what its rows cost, and the
    state is one float a row: the sum of the mean squares of its gradients.
    """

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        """Take parameter groups, matrices of (rows, columns) with ``lr`` each."""
        super().__init__(groups, {"lr": 1e-2})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move every matrix that has a gradient."""
        assert closure is None, "the loss is computed once, before"
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._move(weight, weight.grad, group["lr"])

    def _move(self, weight: Tensor, gradient: Tensor, rate: float) -> None:
        state = self.state[weight]
        if not state:
            state["squares"] = torch.zeros(len(weight), device=weight.device)
        squares = state["squares"]
        if not gradient.is_sparse:
            squares += gradient.square().mean(dim=1)
            weight -= gradient * (rate / (squares.sqrt() + TINY))[:, None]
            return
        gradient = gradient.coalesce()
        rows, values = gradient.indices()[0], gradient.values()
        touched = squares[rows] + values.square().mean(dim=1)
        squares[rows] = touched
        weight.index_add_(0, rows, values * (-rate / (touched.sqrt() + TINY))[:, None])
