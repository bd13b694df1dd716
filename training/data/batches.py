"""Rows of a data set, cut into the tensors one training step reads.

Letters: Q queries in a batch, V vocabulary (tokens or features), L labels, P (query, label) pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor


@dataclass(frozen=True)
class Rows:
    """One split in memory, which grows with non-zeros alone.

    Attributes:
        inputs: float32 CSR (N, V): token counts of texts, or feature values.
        targets: float32 CSR (N, L): relevances of the true labels.
        words: tokens of texts in reading order, as `training.tokens.read_words` gives them; None where nobody asked, or
            where the inputs are that.
    """

    inputs: csr_array
    targets: csr_array
    words: csr_array | None = None

    def __len__(self) -> int:
        return int(self.inputs.shape[0])

    @property
    def reading(self) -> csr_array:
        """What word classifiers read: tokens in reading order, or what the encoder reads where that is the same."""
        return self.inputs if self.words is None else self.words

    def take(self, rows: NDArray[np.int64]) -> Rows:
        """The given rows, in the given order."""
        return Rows(self.inputs[rows], self.targets[rows], None if self.words is None else self.words[rows])


@dataclass(frozen=True)
class Bags:
    """A batch of bags in the layout of ``torch.nn.EmbeddingBag``.

    Attributes:
        ids: int64 (nnz,), token or feature ids.
        offsets: int64 (Q + 1,), where each bag begins, and the end.
        values: float32 (nnz,), counts or feature values.
    """

    ids: Tensor
    offsets: Tensor
    values: Tensor

    @classmethod
    def from_csr(cls, inputs: csr_array, device: torch.device | None = None) -> Bags:
        """Bags of the rows of a (Q, V) matrix."""
        return cls(
            torch.from_numpy(inputs.indices.astype(np.int64)).to(device),
            torch.from_numpy(inputs.indptr.astype(np.int64)).to(device),
            torch.from_numpy(inputs.data.astype(np.float32)).to(device),
        )

    def __len__(self) -> int:
        return self.offsets.numel() - 1

    def __add__(self, others: Bags) -> Bags:
        """These bags, then the others."""
        offsets = torch.cat([self.offsets, others.offsets[1:] + self.ids.numel()])
        return Bags(torch.cat([self.ids, others.ids]), offsets, torch.cat([self.values, others.values]))

    def rows(self) -> Tensor:
        """The query each id belongs to: int64 (nnz,)."""
        lengths = self.offsets.diff()
        return torch.repeat_interleave(torch.arange(len(self), device=lengths.device), lengths)


@dataclass(frozen=True)
class Positives:
    """The true labels of a batch as P pairs, by query.

    Attributes:
        queries: int64 (P,), position in the batch.
        labels: int64 (P,), label row.
        relevances: float32 (P,).
    """

    queries: Tensor
    labels: Tensor
    relevances: Tensor

    @classmethod
    def from_csr(cls, targets: csr_array, device: torch.device | None = None) -> Positives:
        """Pairs of the non-zeros of a (Q, L) matrix."""
        queries = np.repeat(np.arange(targets.shape[0]), np.diff(targets.indptr))
        return cls(
            torch.from_numpy(queries).to(device),
            torch.from_numpy(targets.indices.astype(np.int64)).to(device),
            torch.from_numpy(targets.data.astype(np.float32)).to(device),
        )


@dataclass(frozen=True)
class Batch:
    """What one training step reads.

    Attributes:
        rows: int64 (Q,), which of the training rows these are.
        bags: their inputs; where several workers train, of the rows that this one has.
        positives: their true labels.
    """

    rows: NDArray[np.int64]
    bags: Bags
    positives: Positives

    @classmethod
    def from_rows(cls, rows: Rows, chosen: NDArray[np.int64], device: torch.device | None = None) -> Batch:
        """The chosen rows as one batch, in the given order."""
        taken = rows.take(chosen)
        return cls(chosen, Bags.from_csr(taken.inputs, device), Positives.from_csr(taken.targets, device))

    def __len__(self) -> int:
        return len(self.rows)
