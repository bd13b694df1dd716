"""The bag encoder: a weighted embedding bag and layers above it.

Letters: Q queries, V vocabulary (tokens or features), D dimensions, nnz ids of all bags of a batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, PositiveInt
from scipy.sparse import csr_array
from torch import Tensor, nn

from training.data.batches import Bags
from training.encoders.base import Encoder
from training.vocabulary import inverse_document_frequency

if TYPE_CHECKING:
    from training.data.dataset import Dataset

TINY = 1e-12


class BagConfig(BaseModel):
    """Sizes of a bag encoder."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["bag"] = "bag"
    widths: tuple[PositiveInt, ...] | None = Field(
        default=None, min_length=1, description="units of each layer; None: derived by the method"
    )
    dropout: float = Field(default=0.0, ge=0, lt=1, description="share of hidden units dropped in training")


class BagEncoder(Encoder):
    """A weighted embedding bag followed by fully connected layers, ReLU after each.

    Texts are weighted by TF-IDF, (1 + ln count) * idf; features keep their values. Either is L2-normalised, so the bag
    is the first fully connected layer applied to a normalised sparse vector.
    """

    idf: Tensor

    def __init__(self, config: BagConfig, input_width: int, *, text: bool) -> None:
        super().__init__()
        if config.widths is None:
            raise ValueError("the encoder's widths must be derived before it is built")
        first, *others = config.widths
        self.text = text
        self.bag = nn.EmbeddingBag(input_width, first, mode="sum", include_last_offset=True)
        self.bias = nn.Parameter(torch.zeros(first))
        self.layers = nn.ModuleList(nn.Linear(left, right) for left, right in zip(config.widths, others, strict=False))
        self.dropout = nn.Dropout(config.dropout)
        self.register_buffer("idf", torch.ones(input_width))
        self.output_width = config.widths[-1]
        nn.init.normal_(self.bag.weight, std=0.1)

    def initialise(self, dataset: Dataset) -> None:
        """Take the IDF weights of the training rows."""
        self.set_idf(dataset.train.inputs)

    def set_idf(self, train: csr_array) -> None:
        """Compute IDF weights from the training rows' bags (N, V); features are left as they are."""
        if self.text:
            self.idf.copy_(torch.from_numpy(inverse_document_frequency(train)))

    def weigh(self, ids: Tensor, values: Tensor) -> Tensor:
        """Weight of each id before normalisation; zero stays zero, so padding keeps its weight.

        Args:
            ids: int64 of any shape.
            values: float32 of the same shape, counts or feature values.
        """
        if not self.text:
            return values
        return torch.where(values > 0, 1 + values.clamp(min=1).log(), 0.0) * self.idf[ids]

    def forward(self, bags: Bags) -> Tensor:
        """Hidden vectors float32 (Q, D)."""
        weights = self.weigh(bags.ids, bags.values)
        rows = bags.rows()
        squares_Q = torch.zeros(len(bags), device=weights.device).index_add_(0, rows, weights.square())
        weights = weights / squares_Q.clamp(min=TINY).sqrt()[rows]
        return self.layers_above(self.bag(bags.ids, bags.offsets, per_sample_weights=weights))

    def padded(self, ids_QT: Tensor, values_QT: Tensor) -> Tensor:
        """The same function of padded bags (value 0 pads), in operations that ONNX has: what serving runs."""
        weights_QT = self.weigh(ids_QT, values_QT)
        norms_Q1 = weights_QT.square().sum(dim=1, keepdim=True).clamp(min=TINY).sqrt()
        embedded_QTD = self.bag.weight[ids_QT]
        pooled_QD = torch.matmul((weights_QT / norms_Q1).unsqueeze(1), embedded_QTD).squeeze(1)
        return self.layers_above(pooled_QD)

    def layers_above(self, pooled_QD: Tensor) -> Tensor:
        """What follows the bag."""
        hidden_QD: Tensor = self.dropout(torch.relu(pooled_QD + self.bias))
        for layer in self.layers:
            above_QD = self.dropout(torch.relu(layer(hidden_QD)))
            # Equal widths are joined by a shortcut: without it a second layer learns far slower than the first one
            # alone.
            hidden_QD = hidden_QD + above_QD if above_QD.shape == hidden_QD.shape else above_QD
        return hidden_QD
