"""What an encoder is: the part of a method that reads bags.

Letters: Q queries, T ids of the longest bag, D dimensions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from torch import Tensor, nn

from training.data.batches import Bags

if TYPE_CHECKING:
    from training.data.dataset import Dataset


class Encoder(nn.Module, ABC):
    """From bags to hidden vectors; one function in two forms, for training and for serving.

    Attributes:
        output_width: D.
    """

    output_width: int

    def initialise(self, dataset: Dataset) -> None:
        """Start from the data's statistics; called once, before the first step. By default there is nothing to do."""

    @abstractmethod
    def forward(self, bags: Bags) -> Tensor:
        """Hidden vectors float32 (Q, D)."""

    @abstractmethod
    def padded(self, ids_QT: Tensor, values_QT: Tensor) -> Tensor:
        """The same function of padded bags (value 0 pads), in operations that ONNX has: what serving runs."""
