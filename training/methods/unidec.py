"""UniDEC: a dual encoder and a classifier trained together on a pool of picked labels.

UniDEC, WWW 2025 (DEPSL is its encoder alone). Queries and label texts share one encoder with two heads: the encoder
head is matched with the same head's view of the label text, the classifier head with a free vector per label. Either is
trained by a decoupled softmax over the labels picked for the batch; at inference both, normalised, are concatenated on
the query's and on the label's side.
"""

from __future__ import annotations

from typing import Literal, Self

import torch
from pydantic import Field
from scipy.sparse import csr_array
from torch import Tensor, nn
from torch.nn import functional as F

from training import losses
from training.data.batches import Bags, Batch
from training.data.dataset import Dataset, UnsuitableData
from training.encoders import EncoderConfig, new_encoder
from training.methods.base import MethodConfig, Model, Shape, Tables
from training.negatives.in_batch import draw_pool

LABELS_AT_ONCE = 8192


class UnidecConfig(MethodConfig):
    """Options of UniDEC."""

    name: Literal["unidec"] = "unidec"
    dimensions: int = Field(default=128, ge=1, description="width of each of the two heads")
    dropout: float = Field(default=0.1, ge=0, lt=1, description="of both projections")
    positives_per_query: int = Field(default=3, ge=1, description="beta: true labels drawn into the pool per query")
    pool_size: int = Field(default=8000, ge=1, description="labels a batch is trained against")
    logit_scale: float = Field(default=18.0, gt=0, description="multiplier of the scores of both heads")
    encoder_weight: float = Field(
        default=0.5, ge=0, le=1, description="lambda: share of the encoder head's loss, the rest is the classifier's"
    )
    symmetric: bool = Field(default=True, description="add the label-to-query direction to the encoder head's loss")


class Unidec(Model):
    """UniDEC; ``encoder`` must be resolved."""

    Config = UnidecConfig
    label_counts_L: Tensor

    def __init__(self, config: UnidecConfig, encoder: EncoderConfig, shape: Shape) -> None:
        super().__init__()
        self.config = config
        self.input_width = shape.input_width
        self.encoder = new_encoder(encoder, shape)
        self.encoder_head = nn.Linear(self.encoder.output_width, config.dimensions)
        self.classifier_head = nn.Linear(self.encoder.output_width, config.dimensions)
        self.classifier = nn.Embedding(shape.label_count, config.dimensions)
        self.dropout = nn.Dropout(config.dropout)
        nn.init.xavier_uniform_(self.classifier.weight)
        self._label_vectors_LD: Tensor | None = None

    @classmethod
    def encoder_config(cls, config: UnidecConfig, encoder: EncoderConfig, shape: Shape) -> EncoderConfig:
        """One layer of 512 units below the heads."""
        return encoder if encoder.widths is not None else encoder.model_copy(update={"widths": (512,)})

    @classmethod
    def check_data(cls, config: UnidecConfig, dataset: Dataset) -> None:
        """Ask for label texts."""
        _label_bags(dataset)

    @classmethod
    def make_tables(cls, config: UnidecConfig, dataset: Dataset, seed: int) -> Tables:
        """Label texts as bags and label frequencies.

        Raises:
            UnsuitableData: the labels have no texts.
        """
        bags = _label_bags(dataset)
        return {
            "labels.indptr": bags.indptr,
            "labels.indices": bags.indices,
            "labels.data": bags.data,
            "labels.counts": dataset.label_counts,
        }

    def attach(self, tables: Tables) -> None:
        """Take label bags and frequencies."""
        csr = (tables["labels.data"], tables["labels.indices"], tables["labels.indptr"])
        self.label_bags = csr_array(csr, shape=(self.classifier.num_embeddings, self.input_width))
        self.register_buffer("label_counts_L", self.tensor(tables["labels.counts"]), persistent=False)

    def encode(self, hidden_QD: Tensor) -> Tensor:
        """The encoder head: projection, tanh, dropout, unit length."""
        return F.normalize(self.dropout(torch.tanh(self.encoder_head(hidden_QD))), dim=1)

    def classify(self, hidden_QD: Tensor) -> Tensor:
        """The classifier head: projection and dropout; its length is free in training."""
        projected_QD: Tensor = self.dropout(self.classifier_head(hidden_QD))
        return projected_QD

    def loss(self, batch: Batch) -> Tensor:
        """Decoupled softmax of both heads over the batch's pool."""
        config = self.config
        pool = draw_pool(batch.positives, len(batch), config.positives_per_query, config.pool_size, self.label_counts_L)
        hidden_QD = self.encoder(batch.bags)
        encoder_QP = config.logit_scale * self.encode(hidden_QD) @ self.encode(self._label_hidden(pool.labels_P)).T
        encoder_loss = losses.decoupled_softmax(encoder_QP, pool.targets_QP)
        if config.symmetric:
            encoder_loss = (encoder_loss + losses.decoupled_softmax(encoder_QP.T, pool.targets_QP.T)) / 2
        classifier_PD = self.dropout(self.classifier(pool.labels_P))
        classifier_QP = config.logit_scale * self.classify(hidden_QD) @ classifier_PD.T
        classifier_loss = losses.decoupled_softmax(classifier_QP, pool.targets_QP)
        return config.encoder_weight * encoder_loss + (1 - config.encoder_weight) * classifier_loss

    def query_vectors(self, hidden_QD: Tensor) -> Tensor:
        """Queries in the concatenated space, float32 (Q, 2D).

        An inner product there is the mean of the two heads' cosines.
        """
        return torch.cat([self.encode(hidden_QD), F.normalize(self.classify(hidden_QD), dim=1)], dim=1) / 2**0.5

    def label_vectors(self) -> Tensor:
        """Labels in the concatenated space, float32 (L, 2D)."""
        starts = range(0, self.classifier.num_embeddings, LABELS_AT_ONCE)
        rows = torch.arange(self.classifier.num_embeddings, device=self.classifier.weight.device)
        encoded_LD = torch.cat(
            [self.encode(self._label_hidden(rows[start : start + LABELS_AT_ONCE])) for start in starts]
        )
        return torch.cat([encoded_LD, F.normalize(self.classifier.weight, dim=1)], dim=1) / 2**0.5

    def score(self, bags: Bags) -> Tensor:
        """Inner products in the concatenated space."""
        if self._label_vectors_LD is None:
            self._label_vectors_LD = self.label_vectors()
        return self.query_vectors(self.encoder(bags)) @ self._label_vectors_LD.T

    def train(self, mode: bool = True) -> Self:
        """Switch modes; label vectors kept for scoring are dropped, since weights may change."""
        self._label_vectors_LD = None
        return super().train(mode)

    def _label_hidden(self, labels_P: Tensor) -> Tensor:
        rows = self.label_bags[labels_P.cpu().numpy()]
        hidden_PD: Tensor = self.encoder(Bags.from_csr(rows, labels_P.device))
        return hidden_PD

    def encoded_rows(self, dataset: Dataset) -> list[csr_array]:
        """Label texts too: every step encodes those of its pool, every measurement all."""
        return [*super().encoded_rows(dataset), _label_bags(dataset)]

    def label_texts_per_step(self) -> int:
        """The pool's."""
        return min(self.config.pool_size, self.classifier.num_embeddings)

    def activations_per_row(self) -> int:
        """Scores of both heads against the pool, with targets and gradients."""
        return 6 * self.config.pool_size


def _label_bags(dataset: Dataset) -> csr_array:
    if dataset.label_bags is None:
        raise UnsuitableData(
            f"{dataset.card.name}: unidec encodes label texts, and this data set has none; "
            "mach and declare work without them"
        )
    return dataset.label_bags
