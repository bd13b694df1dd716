"""With whom a process trains a model: nobody, or the other workers of the run (`training.distributed.workers`).

A team divides what there is many of. Position p among the training rows, and among the labels, belongs to worker p mod
W: it alone keeps that row, or that label's classifier and text. A step is one batch for all. Each worker encodes the
batch's rows, and the pool's label texts, that it has; the vectors of queries are exchanged, and every worker scores all
queries against its own labels. What it calls its loss is its share: the sum over workers is the loss of one process
that has everything, so the sum of their gradients is that one's gradient.

Whoever calls one of a team's members that hears of other workers must do so on all workers, in the same order.

Letters: W workers, Q queries of a batch, L labels, K answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from training.data.batches import Batch, Rows
from training.topk import top

_T = TypeVar("_T")


class Team:
    """A process that trains alone, and so has everything: each member gives back what it is given.

    Attributes:
        rank: this worker, counted from 0.
        size: workers W.
    """

    rank = 0
    size = 1

    @property
    def mine(self) -> slice:
        """The positions that belong to this worker."""
        return slice(self.rank, None, self.size)

    def count(self, total: int) -> int:
        """How many of so many positions belong to this worker."""
        return len(range(self.rank, total, self.size))

    def own(self, labels_P: Tensor) -> Tensor:
        """Those of the labels that belong to this worker, in their order; all are label rows of the whole."""
        return labels_P

    def place(self, own_P: Tensor) -> Tensor:
        """Where labels of this worker stand among all of its labels."""
        return own_P

    def places(self, rows_Q: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where those of the training rows that belong to this worker stand among all of its rows."""
        return rows_Q

    def batch(self, rows: Rows, chosen_Q: NDArray[np.int64], device: torch.device | None = None) -> Batch:
        """The chosen training rows as one batch: bags of those that this worker has, true labels of all.

        Args:
            rows: this worker's.
            chosen_Q: rows of the whole.
            device: of the tensors.
        """
        return Batch.from_rows(rows, chosen_Q, device)

    def batches(
        self, rows: Rows, order: NDArray[np.int64], batch_size: int, device: torch.device | None = None
    ) -> Iterator[Batch]:
        """The rows in the given order, ``batch_size`` at a time; the last batch holds what is left."""
        for start in range(0, len(order), batch_size):
            yield self.batch(rows, order[start : start + batch_size], device)

    def seed(self, seed: int) -> None:
        """Seed torch's generator; what is drawn outside of `common_draws` is another thing on every worker."""
        torch.manual_seed(seed)

    def common_draws(self) -> AbstractContextManager[None]:
        """Within it all workers draw the same, if they draw equally much."""
        return nullcontext()

    def joined(self, own: Tensor, rows_Q: NDArray[np.int64]) -> Tensor:
        """All rows of a batch, (Q, …), from each worker's own; differentiable.

        Args:
            own: what this worker has made of the rows that belong to it, in their order.
            rows_Q: training rows of the batch.
        """
        return own

    def sum(self, value: Tensor) -> Tensor:
        """The sum over all workers; differentiable."""
        return value

    def logsumexp(self, value: Tensor) -> Tensor:
        """The logarithm of the sum over all workers of exponentials; differentiable."""
        return value

    def whole(self, part: Tensor) -> Tensor:
        """All positions, from each worker's own."""
        return part

    def at_first(self, part: Tensor) -> Tensor:
        """All positions, on the first worker's processor; nothing, (0, …), on the others'."""
        return part

    def decided(self, decide: Callable[[], _T]) -> _T:
        """What the first worker finds, on all workers."""
        return decide()

    def add_gradients(self, weights: Sequence[nn.Parameter]) -> None:
        """Give each of the weights the sum of all workers' gradients."""

    def best(self, scores_QL: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Rows and scores of the k best labels of each query, (Q, k) both: see `training.topk.top`.

        Args:
            scores_QL: of this worker's labels; they are replaced where they stand.
            k: answers, no more than there are labels.
        """
        return top(scores_QL, k)

    def smallest(self, values: Tensor, rank: int) -> Tensor:
        """The value of that rank, counted from 1, in rising order among all workers' values, none of them negative."""
        return values.flatten().kthvalue(rank).values


class Absent(Team):
    """The first of so many workers, for the sizes of what it would have: it exchanges nothing."""

    def __init__(self, size: int) -> None:
        self.size = size


ALONE = Team()
