"""One-vs-all: a linear classifier for every label over a shared encoder, trained by sigmoid cross-entropy.

With ``negatives="all"`` each step's loss is that of all labels: the reference that compression and sampling are
measured against. With ``"astra"`` it is estimated from the batch's positives, mined hard negatives and a uniform sample
of the other labels, so that a step's cost does not grow with the number of labels: "ASTRA: Accurate and Scalable
ANNS-based Training of Extreme Classifiers", arXiv 2409.20156; `training.negatives.astra` says what is theirs and what
is ours. A patent application describes a trainer of this kind (US 2025/0371338 A1): whether that concerns you is yours
to decide.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from training import losses
from training.data.batches import Bags, Batch
from training.data.dataset import Dataset
from training.encoders import EncoderConfig, new_encoder
from training.methods.base import MethodConfig, Model, Shape, settled
from training.methods.declare import DeclareConfig
from training.negatives.astra import WeightedPool, draw_pool
from training.negatives.hard import draw_hard, mine
from training.negatives.in_batch import pool_targets
from training.team import ALONE, Team

ROWS_AT_ONCE = 8192
# Labels up to which a step over all of them costs about as much as one over a sample.
FEW_LABELS = 8192
# Units below DECLARE's output layer.
DECLARE_WIDTH = 256


class OvaConfig(MethodConfig):
    """Options of one-vs-all."""

    name: Literal["ova"] = "ova"
    negatives: Literal["auto", "all", "astra"] = Field(
        default="auto", description="labels that a step's loss sees; auto: all up to 8,192 labels, else astra"
    )
    uniform_negatives: int = Field(default=4000, ge=1, description="astra: labels drawn uniformly for a batch")
    hard_negatives: int = Field(default=0, ge=0, description="astra: mined labels drawn for a query")
    hard_from: int = Field(default=2, ge=1, description="astra: first epoch with mined negatives")
    refresh_every: int = Field(default=5, ge=1, description="astra: epochs until negatives are mined anew")
    weights_kept: PositiveInt | Literal["all", "declare"] = Field(
        default="all",
        description="classifier weights that are not pruned to 0; declare: as many as DECLARE's output layer has",
    )

    def resolved(self, shape: Shape) -> OvaConfig:
        """The negatives from L, the number of weights from DECLARE's rank."""
        updates: dict[str, object] = {}
        if self.negatives == "auto":
            updates["negatives"] = "all" if shape.label_count <= FEW_LABELS else "astra"
        if self.weights_kept == "declare":
            updates["weights_kept"] = DECLARE_WIDTH * settled(DeclareConfig().resolved(shape).rank)
        return self.model_copy(update=updates)


class Ova(Model):
    """One-vs-all; ``config`` and ``encoder`` must be resolved."""

    Config = OvaConfig
    divides = True

    def __init__(self, config: OvaConfig, encoder: EncoderConfig, shape: Shape, team: Team = ALONE) -> None:
        super().__init__()
        self.config, self.team, self.label_count = config, team, shape.label_count
        self.encoder = new_encoder(encoder, shape)
        sampled = config.negatives == "astra"
        own = team.count(shape.label_count)
        self.classifier = nn.Embedding(own, self.encoder.output_width, sparse=sampled)
        self.bias = nn.Embedding(own, 1, sparse=sampled)
        nn.init.normal_(self.classifier.weight, std=self.encoder.output_width**-0.5 / 2)
        self._mined_NH: Tensor | None = None
        self._threshold = torch.tensor(0.0)

    @classmethod
    def encoder_config(cls, config: OvaConfig, encoder: EncoderConfig, shape: Shape) -> EncoderConfig:
        """One layer of 1,024 units."""
        return encoder if encoder.widths is not None else encoder.model_copy(update={"widths": (1024,)})

    def initialise(self, dataset: Dataset) -> None:
        """Beside IDF: biases start at the log odds of each label."""
        super().initialise(dataset)
        targets = dataset.train.targets
        counts_L = np.bincount(targets.indices, np.minimum(targets.data, 1), dataset.label_count)
        shares_L = np.minimum((counts_L + 0.5) / (len(dataset.train) + 1), 0.5)
        with torch.no_grad():
            odds_L = np.log(shares_L / (1 - shares_L)).astype(np.float32)
            self.bias.weight[:, 0] = self.tensor(odds_L[self.team.mine])

    def classifiers(self) -> list[nn.Parameter]:
        """Vectors and biases of the labels."""
        return [*self.classifier.parameters(), *self.bias.parameters()]

    def label_rows(self) -> list[nn.Parameter]:
        """The same."""
        return self.classifiers()

    def begin_epoch(self, epoch: int, dataset: Dataset) -> None:
        """Fix the epoch's pruning threshold; mine hard negatives when they are due."""
        self._threshold = self._magnitude()
        config = self.config
        due = epoch >= config.hard_from and (epoch - config.hard_from) % config.refresh_every == 0
        if config.negatives == "astra" and config.hard_negatives and due:
            self._mined_NH = self._mine(dataset)

    def renewed(self) -> dict[str, Tensor]:
        """The mined negatives."""
        return {} if self._mined_NH is None else {"mined": self.team.at_first(self._mined_NH)}

    def take_renewed(self, tensors: Mapping[str, Tensor]) -> None:
        """See `Model`."""
        self._mined_NH = tensors["mined"][self.team.mine].contiguous() if "mined" in tensors else None

    def loss(self, batch: Batch) -> Tensor:
        """Sigmoid cross-entropy of all labels, or its estimate."""
        hidden_QD = self.team.joined(self.encoder(batch.bags), batch.rows)
        if self.config.negatives == "all":
            every_L = self.team.own(torch.arange(self.label_count, device=hidden_QD.device))
            logits_QL = hidden_QD @ self._pruned(self.classifier.weight).T + self.bias.weight[:, 0]
            return losses.binary_cross_entropy(logits_QL, pool_targets(batch.positives, len(batch), every_L))
        pool = self._pool(batch)
        places_P = self.team.place(pool.labels_P)
        rows_PD = self._pruned(self.classifier(places_P))
        logits_QP = hidden_QD @ rows_PD.T + self.bias(places_P)[:, 0]
        return losses.binary_cross_entropy(logits_QP, pool.targets_QP, pool.weights_P)

    def query_vectors(self, hidden_QD: Tensor) -> Tensor:
        """Queries with a 1 for the bias, float32 (Q, D + 1)."""
        return torch.cat([hidden_QD, torch.ones_like(hidden_QD[:, :1])], dim=1)

    def label_vectors(self) -> Tensor:
        """Classifiers, a worker's own ones, pruned exactly, with their biases, float32 (L, D + 1)."""
        weight_LD = self.classifier.weight
        if self.config.weights_kept != "all":
            weight_LD = weight_LD * (weight_LD.abs() >= self._magnitude())
        return torch.cat([weight_LD, self.bias.weight], dim=1)

    def score(self, bags: Bags) -> Tensor:
        """Logits of every label."""
        return self.query_vectors(self.encoder(bags)) @ self.label_vectors().T

    def activations_per_row(self) -> int:
        """Logits, targets and three more arrays of their size on the way to the loss; the encoder's layers."""
        return 5 * self._labels_seen() + self.encoder.activations_per_row()

    def activations_per_batch(self) -> int:
        """Classifiers of a pool, and their gradients before and after equal rows are added up."""
        pruned = 0 if self.config.weights_kept == "all" else 2
        arrays = pruned if self.config.negatives == "all" else 3 + pruned
        return arrays * self.team.count(self._labels_seen()) * self.classifier.embedding_dim

    def scoring_floats(self, queries: int, label_count: int) -> int:
        """Label vectors and, where they are pruned, magnitudes and a copy; then scores."""
        own = self.team.count(label_count)
        vectors = (1 if self.config.weights_kept == "all" else 3) * own * self.classifier.embedding_dim
        return vectors + 2 * queries * own

    def exchanged_floats(self, dataset: Dataset) -> int:
        """Vectors of all labels where negatives are mined."""
        mines = self.config.negatives == "astra" and self.config.hard_negatives
        return self.label_count * (self.classifier.embedding_dim + 1) if mines else 0

    def table_bytes(self, dataset: Dataset) -> int:
        """The mined labels of every row, where they are wanted."""
        sampled = self.config.negatives == "astra"
        return len(dataset.train) * sampled * self.config.hard_negatives * self.config.refresh_every * np.int32().nbytes

    def _labels_seen(self) -> int:
        """Labels of a step: all, or about as many true and mined ones as uniform ones."""
        labels = self.label_count
        return labels if self.config.negatives == "all" else min(labels, 2 * self.config.uniform_negatives)

    def _pruned(self, weight_PD: Tensor) -> Tensor:
        """Small weights count as 0, but their gradients pass, so that they may grow back (straight-through)."""
        if self.config.weights_kept == "all":
            return weight_PD
        small_PD = weight_PD.detach() * (weight_PD.detach().abs() < self._threshold)
        return weight_PD - small_PD

    def _magnitude(self) -> Tensor:
        """The smallest magnitude among the weights that are kept."""
        weight_LD, kept = self.classifier.weight.detach(), self.config.weights_kept
        weights = self.label_count * weight_LD.shape[1]
        if kept == "all" or int(kept) >= weights:
            return weight_LD.new_zeros(())
        return self.team.smallest(weight_LD.abs(), weights - int(kept) + 1)

    def _pool(self, batch: Batch) -> WeightedPool:
        """The pool's labels, of which a worker gets its own."""
        hard, mined_QH = batch.positives.labels[:0], None
        if self._mined_NH is not None:
            mined_QH = self._mined_NH[torch.from_numpy(self.team.places(batch.rows))].to(hard.device)
            mined_QH = self.team.joined(mined_QH, batch.rows)
        with self.team.common_draws():
            if mined_QH is not None:
                hard = draw_hard(mined_QH, self.config.hard_negatives)
            given = batch.positives, len(batch), hard, self.config.uniform_negatives, self.label_count
            return draw_pool(*given, own=self.team.own)

    @torch.no_grad()
    def _mine(self, dataset: Dataset) -> Tensor:
        """The labels that score highest for each training row without being true, int32 (N, H)."""
        self.eval()
        rows, labels_LD = dataset.train, self.team.whole(self.label_vectors().cpu()).numpy()
        length = self.config.hard_negatives * self.config.refresh_every
        parts = []
        for start in range(0, len(rows), ROWS_AT_ONCE):
            block = slice(start, start + ROWS_AT_ONCE)
            hidden_QD = self.encoder(Bags.from_csr(rows.inputs[block], self.classifier.weight.device))
            queries_QD = self.query_vectors(hidden_QD).cpu().numpy()
            parts.append(mine(queries_QD, labels_LD, rows.targets[block], length))
        return torch.from_numpy(np.concatenate(parts))
