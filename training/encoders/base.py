"""What an encoder is: the part of a method that reads bags.

Letters: Q queries, T ids of the longest bag, D dimensions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from scipy.sparse import csr_array
from torch import Tensor, nn

from training.data.batches import Bags

if TYPE_CHECKING:
    from training.data.dataset import Dataset


class EncoderError(Exception):
    """A pretrained model cannot be had, or cannot be used as asked."""


class Encoder(nn.Module, ABC):
    """From bags to hidden vectors; one function in two forms, for training and for serving.

    Attributes:
        output_width: D.
    """

    output_width: int

    def initialise(self, dataset: Dataset) -> None:
        """Start from the data's training rows; called once, before the first step. By default nothing is done."""

    @abstractmethod
    def forward(self, bags: Bags) -> Tensor:
        """Hidden vectors float32 (Q, D)."""

    @abstractmethod
    def padded(self, ids_QT: Tensor, values_QT: Tensor) -> Tensor:
        """The same function of padded bags (value 0 pads), in operations that ONNX has: what serving runs."""

    def own_weights(self) -> Iterable[nn.Parameter]:
        """The weights that `training.encoder_rate` is for; by default all but embedding tables."""
        tables = {id(module.weight) for module in self.modules() if isinstance(module, nn.Embedding | nn.EmbeddingBag)}
        return (weight for weight in self.parameters() if id(weight) not in tables)

    def remember(self, rows: csr_array) -> None:
        """Prepare for more rows that will be encoded again and again; called after `initialise`."""

    def remembered_bytes(self, rows: csr_array) -> int:
        """Memory that `remember` takes for these rows."""
        return 0

    def activations_remembering(self) -> int:
        """Floats that `remember` holds beside what it keeps, for the memory estimate; by default none."""
        return 0

    @abstractmethod
    def activations_per_row(self) -> int:
        """Floats that a training step holds of a row in the layers above its tokens, for the memory estimate."""

    def activations_per_text(self, tokens: int) -> int:
        """Floats that a training step holds of so many tokens before they become one vector; by default none."""
        return 0

    def simplify(self) -> None:
        """Before export: compute the same in fewer kinds of operations, where there is a choice."""


def layer_activations(units: Iterable[int]) -> int:
    """Floats that a training step holds of a row in such layers: sums, activations, dropout masks and outputs."""
    return 4 * sum(units)


def fully_connected(hidden_QD: Tensor, layers: nn.ModuleList, dropout: nn.Dropout) -> Tensor:
    """Layers with ReLU and dropout; equal widths are joined by a shortcut, as in the bag encoder."""
    for layer in layers:
        above_QD = dropout(torch.relu(layer(hidden_QD)))
        hidden_QD = hidden_QD + above_QD if above_QD.shape == hidden_QD.shape else above_QD
    return hidden_QD
