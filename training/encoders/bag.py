"""The bag encoder: a weighted embedding bag and layers above it.

Letters: Q queries, V vocabulary (tokens or features), D dimensions, nnz ids of all bags of a batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, PositiveInt
from scipy.sparse import csr_array
from torch import Tensor, nn
from torch.nn import functional as F

from training.data.batches import Bags
from training.encoders.base import Encoder, layer_activations
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
    table_updates: Literal["dense", "rows"] = Field(
        default="dense",
        description="dense: AdamW moves the whole embedding table; rows: Adagrad moves the rows of a batch's tokens",
    )
    scale: float = Field(default=0.1, gt=0, allow_inf_nan=False, description="deviation of the first embeddings")
    hashed_width: int = Field(
        default=0,
        ge=0,
        description="rows of the embedding table that wider inputs are hashed to; 0: one for each input",
    )


class BagEncoder(Encoder):
    """A weighted embedding bag followed by fully connected layers, ReLU after each.

    Texts are weighted by TF-IDF, (1 + ln count) * idf; features keep their values. Either is L2-normalised, so the bag
    is the first fully connected layer applied to a normalised sparse vector.

    Inputs wider than ``hashed_width`` share embeddings, as in MACH's released code: those of features that collide add
    up. What a feature is hashed to is a table of 4 bytes for each, drawn with the weights and a part of them, so that
    the graph that serves needs no hash.
    """

    idf: Tensor
    columns: Tensor | None

    def __init__(self, config: BagConfig, input_width: int, *, text: bool) -> None:
        super().__init__()
        if config.widths is None:
            raise ValueError("the encoder's widths must be derived before it is built")
        first, *others = config.widths
        self.text = text
        hashed = 0 < config.hashed_width < input_width
        # A random order, taken modulo the width: no row is shared by more features than others, give or take one.
        columns = (torch.randperm(input_width) % config.hashed_width).int() if hashed else None
        self.register_buffer("columns", columns)
        table_rows = config.hashed_width if hashed else input_width
        self.bag = nn.EmbeddingBag(table_rows, first, mode="sum", include_last_offset=True)
        self.bias = nn.Parameter(torch.zeros(first))
        self.layers = nn.ModuleList(nn.Linear(left, right) for left, right in zip(config.widths, others, strict=False))
        self.dropout = nn.Dropout(config.dropout)
        self.register_buffer("idf", torch.ones(input_width))
        self.by_rows = config.table_updates == "rows"
        self.output_width = config.widths[-1]
        nn.init.normal_(self.bag.weight, std=config.scale)

    def initialise(self, dataset: Dataset) -> None:
        """Take the IDF weights of the training rows."""
        self.set_idf(dataset.train.inputs)

    def activations_per_row(self) -> int:
        """See `Encoder`."""
        return layer_activations([self.bias.numel(), *(layer.get_parameter("bias").numel() for layer in self.layers)])

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

    def rows_of(self, ids: Tensor) -> Tensor:
        """The embedding table's rows of token or feature ids, int64 of the same shape."""
        return ids if self.columns is None else self.columns[ids].long()

    def forward(self, bags: Bags) -> Tensor:
        """Hidden vectors float32 (Q, D)."""
        weights = self.weigh(bags.ids, bags.values)
        rows = bags.rows()
        squares_Q = torch.zeros(len(bags), device=weights.device).index_add_(0, rows, weights.square())
        weights = weights / squares_Q.clamp(min=TINY).sqrt()[rows]
        return self.layers_above(self._pooled(bags, weights))

    def _pooled(self, bags: Bags, weights: Tensor) -> Tensor:
        """Weighted sums of embeddings; where updates are by rows, with gradients for the batch's rows only."""
        ids = self.rows_of(bags.ids)
        if not (self.by_rows and torch.is_grad_enabled()):
            pooled_QD: Tensor = self.bag(ids, bags.offsets, per_sample_weights=weights)
            return pooled_QD
        distinct, places = torch.unique(ids, return_inverse=True)
        rows = F.embedding(distinct, self.bag.weight, sparse=True)
        return F.embedding_bag(
            places, rows, bags.offsets, per_sample_weights=weights, mode="sum", include_last_offset=True
        )

    def padded(self, ids_QT: Tensor, values_QT: Tensor) -> Tensor:
        """The same function of padded bags (value 0 pads), in operations that ONNX has: what serving runs."""
        weights_QT = self.weigh(ids_QT, values_QT)
        norms_Q1 = weights_QT.square().sum(dim=1, keepdim=True).clamp(min=TINY).sqrt()
        embedded_QTD = self.bag.weight[self.rows_of(ids_QT)]
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
