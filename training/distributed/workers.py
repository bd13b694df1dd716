"""A worker of a team that trains one model: what `training.team` promises, by torch's collective operations.

The process group is the default one, of whoever started the process: gloo for tensors on processors, NCCL for those on
GPUs. Nothing here knows of Ray.

Letters: W workers, Q queries of a batch, L labels, K answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch import distributed as dist

from training.data.batches import Bags, Batch, Positives, Rows
from training.metrics import PADDING
from training.team import Team
from training.topk import top

_T = TypeVar("_T")

# Gradients smaller than this travel together.
SMALL = 1 << 18
NONE, DENSE, SPARSE = range(3)
# Bits of a float32 that is not negative; as integers they are in the order of the floats.
FLOAT_BITS = 31


class Workers(Team):
    """One worker among those of torch's default process group."""

    def __init__(self) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self._common = torch.get_rng_state()
        self._common_cuda: Tensor | None = None

    def own(self, labels_P: Tensor) -> Tensor:
        """See `Team`."""
        return labels_P[labels_P % self.size == self.rank]

    def place(self, own_P: Tensor) -> Tensor:
        """See `Team`."""
        return own_P // self.size

    def places(self, rows_Q: NDArray[np.int64]) -> NDArray[np.int64]:
        """See `Team`."""
        own_Q: NDArray[np.int64] = rows_Q[rows_Q % self.size == self.rank]
        return own_Q // self.size

    def batch(self, rows: Rows, chosen_Q: NDArray[np.int64], device: torch.device | None = None) -> Batch:
        """See `Team`: true labels are exchanged, inputs stay where they are."""
        own = rows.take(self.places(chosen_Q))
        pairs = Positives.from_csr(own.targets, device)
        places = torch.from_numpy(np.flatnonzero(chosen_Q % self.size == self.rank)).to(device)
        queries = self._gathered(places[pairs.queries])
        # By query, as one process has them: what is drawn depends on it.
        order = queries.argsort(stable=True)
        labels, relevances = self._gathered(pairs.labels), self._gathered(pairs.relevances)
        return Batch(
            chosen_Q, Bags.from_csr(own.inputs, device), Positives(queries[order], labels[order], relevances[order])
        )

    def seed(self, seed: int) -> None:
        """See `Team`: two streams of numbers, one common to all workers and one of this worker."""
        torch.manual_seed(seed)
        self._keep_common()
        torch.manual_seed(seed + (self.rank + 1) * 1_000_000_007)

    @contextmanager
    def common_draws(self) -> Iterator[None]:
        """See `Team`."""
        own = torch.get_rng_state()
        own_cuda = torch.cuda.get_rng_state() if self._common_cuda is not None else None
        torch.set_rng_state(self._common)
        if self._common_cuda is not None:
            torch.cuda.set_rng_state(self._common_cuda)
        yield
        self._keep_common()
        torch.set_rng_state(own)
        if own_cuda is not None:
            torch.cuda.set_rng_state(own_cuda)

    def joined(self, own: Tensor, rows_Q: NDArray[np.int64]) -> Tensor:
        """See `Team`: the sum of what each worker has, in its place among zeros."""
        if own.is_floating_point():
            own = own.to(torch.promote_types(own.dtype, torch.float32))
            if torch.is_grad_enabled() and not own.requires_grad:
                # Gradients are exchanged, so all workers must ask for them, or none: this one may have no row at all.
                own = own.detach().requires_grad_()
        places = torch.from_numpy(np.flatnonzero(rows_Q % self.size == self.rank)).to(own.device)
        return self.sum(own.new_zeros(len(rows_Q), *own.shape[1:]).index_copy(0, places, own))

    def sum(self, value: Tensor) -> Tensor:
        """See `Team`."""
        summed: Tensor = _Sum.apply(value)  # type: ignore[no-untyped-call]
        return summed

    def logsumexp(self, value: Tensor) -> Tensor:
        """See `Team`."""
        here = torch.tensor([self.rank], device=value.device)
        return self.sum(value.new_zeros(self.size, *value.shape).index_copy(0, here, value[None])).logsumexp(dim=0)

    def whole(self, part: Tensor) -> Tensor:
        """See `Team`."""
        counts, padded = self._padded(part)
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded)
        return _interleaved(parts, sum(counts))

    def at_first(self, part: Tensor) -> Tensor:
        """See `Team`."""
        counts, padded = self._padded(part.detach().cpu())
        parts = [torch.empty_like(padded) for _ in counts] if self.rank == 0 else None
        dist.gather(padded, parts)
        return padded[:0] if parts is None else _interleaved(parts, sum(counts))

    def decided(self, decide: Callable[[], _T]) -> _T:
        """See `Team`."""
        found: list[Any] = [decide() if self.rank == 0 else None]
        dist.broadcast_object_list(found)
        decision: _T = found[0]
        return decision

    def add_gradients(self, weights: Sequence[nn.Parameter]) -> None:
        """See `Team`: a worker without rows in a batch may have no gradient where others have one."""
        if not weights:
            return
        kinds = torch.tensor([_kind(weight.grad) for weight in weights], device=weights[0].device)
        dist.all_reduce(kinds, dist.ReduceOp.MAX)
        small = []
        for weight, kind in zip(weights, kinds.tolist(), strict=True):
            if kind == SPARSE:
                weight.grad = self._sparse_sum(weight)
            elif kind == DENSE:
                weight.grad = torch.zeros_like(weight) if weight.grad is None else weight.grad.contiguous()
                if weight.numel() >= SMALL:
                    dist.all_reduce(weight.grad)
                else:
                    small.append(weight.grad)
        if small:
            flat = torch.cat([gradient.flatten() for gradient in small])
            dist.all_reduce(flat)
            parts = torch.split(flat, [gradient.numel() for gradient in small])
            for gradient, summed in zip(small, parts, strict=True):
                gradient.copy_(summed.view_as(gradient))

    def best(self, scores_QL: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """See `Team`: each worker's best, then the best of them."""
        labels, scores = top(scores_QL, min(k, scores_QL.shape[1]))
        missing = labels == PADDING
        last = torch.iinfo(labels.dtype).max
        labels = (labels * self.size + self.rank).masked_fill(missing, last)
        more = (0, k - labels.shape[1])
        labels_QC = self._side_by_side(nn.functional.pad(labels, more, value=last))
        scores_QC = self._side_by_side(
            nn.functional.pad(scores.masked_fill(missing, -torch.inf), more, value=-torch.inf)
        )
        # In the order of labels, so that ties go to the lower one.
        labels_QC, order_QC = labels_QC.sort(dim=1)
        places_QK, best_QK = top(scores_QC.gather(1, order_QC), k)
        labels_QK = labels_QC.gather(1, places_QK.clamp(min=0)).masked_fill(places_QK == PADDING, PADDING)
        return labels_QK, best_QK

    def smallest(self, values: Tensor, rank: int) -> Tensor:
        """See `Team`: bit by bit, by how many values of all workers are below."""
        bits = values.detach().float().flatten().view(torch.int32)
        found = 0
        for bit in reversed(range(FLOAT_BITS)):
            below = (bits < found + (1 << bit)).sum()
            dist.all_reduce(below)
            if int(below) < rank:
                found += 1 << bit
        return torch.tensor(found, dtype=torch.int32, device=values.device).view(torch.float32)

    def _keep_common(self) -> None:
        self._common = torch.get_rng_state()
        if torch.cuda.is_available():
            self._common_cuda = torch.cuda.get_rng_state()

    def _padded(self, part: Tensor) -> tuple[list[int], Tensor]:
        """How many rows each worker has, and this one's filled up to the most."""
        counts = torch.zeros(self.size, dtype=torch.int64, device=part.device)
        counts[self.rank] = len(part)
        dist.all_reduce(counts)
        found: list[int] = counts.tolist()
        padded = part.detach().new_zeros(max(found), *part.shape[1:])
        padded[: len(part)] = part.detach()
        return found, padded

    def _gathered(self, part: Tensor) -> Tensor:
        """Each worker's rows after those of the ones before it."""
        counts, padded = self._padded(part)
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded)
        return torch.cat([piece[:count] for piece, count in zip(parts, counts, strict=True)])

    def _side_by_side(self, part_QK: Tensor) -> Tensor:
        """Each worker's columns, (Q, W * K)."""
        parts = [torch.empty_like(part_QK) for _ in range(self.size)]
        dist.all_gather(parts, part_QK.contiguous())
        return torch.cat(parts, dim=1)

    def _sparse_sum(self, weight: nn.Parameter) -> Tensor:
        """All workers' rows of a sparse gradient; the same row may come more than once."""
        if weight.grad is None:
            rows, values = weight.new_empty(0, dtype=torch.int64), weight.new_empty(0, *weight.shape[1:])
        else:
            gradient = weight.grad.coalesce()
            rows, values = gradient.indices()[0], gradient.values()
        indices = self._gathered(rows)[None]
        return torch.sparse_coo_tensor(indices, self._gathered(values), weight.shape, check_invariants=False)


class _Sum(torch.autograd.Function):
    """The sum over workers. Losses are summed over workers too, so gradients of the sum are."""

    @staticmethod
    def forward(context: Any, value: Tensor) -> Tensor:
        summed = value.detach().clone(memory_format=torch.contiguous_format)
        dist.all_reduce(summed)
        return summed

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        summed = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(summed)
        return summed


def _interleaved(parts: list[Tensor], count: int) -> Tensor:
    """Position p is the (p // W)-th of part p mod W."""
    return torch.stack(parts, dim=1).flatten(0, 1)[:count]


def _kind(gradient: Tensor | None) -> int:
    if gradient is None:
        return NONE
    return SPARSE if gradient.is_sparse else DENSE
