"""MACH: R small classifiers over hashed buckets instead of one over all labels.

Medini, Huang, Wang, Mohan and Shrivastava, "Extreme Classification in Log Memory using Count-Min Sketch: A Case Study
of Amazon Search with 50M Products", NeurIPS 2019. Labels are hashed into B buckets, R times; each repetition learns to
predict the buckets of a query's labels; the scores of a label's R buckets are merged into the label's score.

Departure from the paper: by default the R classifiers share one encoder (R times fewer weights and operations);
``networks="independent"`` trains the paper's R separate networks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import reduce
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from training import hashing, losses, partition
from training.data.batches import Bags, Batch, Positives
from training.data.dataset import Dataset, UnsuitableData
from training.encoders import EncoderConfig, new_encoder
from training.methods.base import MethodConfig, Model, Shape, Tables, settled

TABLE = "table_RL"

Aggregation = Literal["sum_logits", "mean_prob", "unbiased", "min", "median"]


class MachConfig(MethodConfig):
    """Options of MACH."""

    name: Literal["mach"] = "mach"
    repetitions: int | None = Field(default=None, ge=1, description="R; None: 32 up to 4,096 labels, else 16")
    buckets: int | None = Field(default=None, ge=2, description="B; None: the power of two nearest to 6 sqrt(L)")
    assignment: Literal["hashed", "balanced"] = Field(
        default="hashed", description="of labels to buckets; balanced: equally many labels in each bucket"
    )
    repartition_every: int = Field(
        default=0, ge=0, description="epochs after which labels move to the buckets that the model finds; 0: never"
    )
    repartition_candidates: int = Field(
        default=2, ge=1, description="K, best buckets of a label, of which the least loaded takes it"
    )
    networks: Literal["shared", "independent"] = Field(
        default="shared", description="one encoder for all repetitions, or one each"
    )
    aggregation: Aggregation = Field(default="sum_logits", description="how a label's R bucket scores are merged")
    loss: Literal["auto", "bce", "softmax"] = Field(
        default="auto", description="auto: softmax if every point has exactly one label"
    )

    def resolved(self, shape: Shape) -> MachConfig:
        """Sizes from L; the loss from the number of labels per point."""
        updates = {
            "repetitions": self.repetitions or (32 if shape.label_count <= 4096 else 16),
            "buckets": self.buckets or 2 ** max(4, round(math.log2(6 * math.sqrt(shape.label_count)))),
            "loss": ("softmax" if shape.single_label else "bce") if self.loss == "auto" else self.loss,
        }
        return self.model_copy(update=updates)


class Mach(Model):
    """MACH; ``config`` and ``encoder`` must be resolved."""

    Config = MachConfig
    table_RL: Tensor

    HIDDEN_BELOW: ClassVar = ((32_768, (500, 500)), (524_288, (1024,)))
    HIDDEN_ABOVE: ClassVar = (4096,)

    def __init__(self, config: MachConfig, encoder: EncoderConfig, shape: Shape) -> None:
        super().__init__()
        self.config = config
        self.repetitions, self.buckets = settled(config.repetitions), settled(config.buckets)
        self.label_count = shape.label_count
        networks = 1 if config.networks == "shared" else self.repetitions
        encoders = [new_encoder(encoder, shape) for _ in range(networks)]
        width = encoders[0].output_width
        self.encoders = nn.ModuleList(encoders)
        self.heads = nn.ModuleList(
            nn.Linear(width, self.repetitions * self.buckets // networks) for _ in range(networks)
        )

    @classmethod
    def encoder_config(cls, config: MachConfig, encoder: EncoderConfig, shape: Shape) -> EncoderConfig:
        """Two layers of 500 units up to 32K labels, then one that grows with L."""
        if encoder.widths is not None:
            return encoder
        widths = next((widths for limit, widths in cls.HIDDEN_BELOW if shape.label_count <= limit), cls.HIDDEN_ABOVE)
        return encoder.model_copy(update={"widths": widths})

    @classmethod
    def check_data(cls, config: MachConfig, dataset: Dataset) -> None:
        """Ask for one label a row where the loss is a softmax."""
        if config.loss == "softmax" and (np.diff(dataset.train.targets.indptr) != 1).any():
            raise UnsuitableData(
                f"{dataset.card.name}: method.loss softmax needs exactly one label for each training point; use bce"
            )

    @classmethod
    def make_tables(cls, config: MachConfig, dataset: Dataset, seed: int) -> Tables:
        """The bucket of every label in every repetition, (R, L).

        Raises:
            UnsuitableData: the loss is a softmax, and a row has not exactly one label.
        """
        cls.check_data(config, dataset)
        table = hashing.bucket_table if config.assignment == "hashed" else hashing.balanced_table
        return {"buckets": table(dataset.label_count, settled(config.repetitions), settled(config.buckets), seed)}

    @classmethod
    def kept_tables(cls, tables: Tables, weights: Mapping[str, Tensor]) -> Tables:
        """The bucket table that the weights were trained with, where the labels were moved."""
        moved_RL = weights.get(TABLE)
        return tables if moved_RL is None else {"buckets": moved_RL.numpy().astype(np.int32)}

    def attach(self, tables: Tables) -> None:
        """Take the bucket table.

        Raises:
            ValueError: it is that of other sizes.
        """
        expected, found = (self.repetitions, self.label_count), tables["buckets"].shape
        if found != expected:
            raise ValueError(f"buckets: expected a table of shape {expected}, found {found}")
        # A table that changes belongs to the weights: to those of the best epoch, and to those of a checkpoint.
        moves = self.config.repartition_every > 0
        self.register_buffer(TABLE, self.tensor(tables["buckets"].astype(np.int64)), persistent=moves)

    def initialise(self, dataset: Dataset) -> None:
        """Biases start at the log-odds of their bucket: Adam would need thousands of steps to get there from 0."""
        super().initialise(dataset)
        targets = dataset.train.targets
        relevances = np.minimum(targets.data, 1)  # as in the targets of buckets
        counts_L = self.tensor(np.bincount(targets.indices, relevances, dataset.label_count).astype(np.float32))
        counts_RB = torch.zeros(self.repetitions, self.buckets, device=counts_L.device)
        counts_RB.scatter_add_(1, self.table_RL, counts_L.expand(self.repetitions, -1))
        shares_RB = (counts_RB + 0.5) / (len(dataset.train) + 1)
        odds_RB = torch.logit(shares_RB.clamp(max=0.5)) if self.config.loss == "bce" else shares_RB.log()
        with torch.no_grad():
            for head, odds in zip(self.heads, odds_RB.chunk(len(self.heads)), strict=True):
                head.get_parameter("bias").copy_(odds.flatten())

    def begin_epoch(self, epoch: int, dataset: Dataset) -> None:
        """Re-partition the labels, where it is time.

        A bucket's weights and their moments stay as they are: its new labels are ones that it scores high already.
        """
        every = self.config.repartition_every
        if not every or epoch == 1 or (epoch - 1) % every:
            return
        self.eval()  # no dropout; the loop goes back to training
        counts_L = np.bincount(dataset.train.targets.indices, minlength=self.label_count)
        shape = (self.repetitions // len(self.heads), self.buckets)
        count = min(self.config.repartition_candidates, self.buckets)
        moved: list[NDArray[np.int64]] = []
        for encoder, head in zip(self.encoders, self.heads, strict=True):
            for best_LK in partition.best_buckets(self.encoding(encoder), head, dataset.train, shape, count):
                current_L = self.table_RL[len(moved)].cpu().numpy()
                moved.append(partition.least_loaded(best_LK, counts_L, current_L, self.buckets))
        self.table_RL.copy_(torch.from_numpy(np.stack(moved)))

    def encoding(self, encoder: nn.Module) -> partition.Encode:
        """A network's hidden vectors of rows, on the model's device."""
        return lambda inputs_QV: encoder(Bags.from_csr(inputs_QV, self.table_RL.device))

    def forward(self, bags: Bags) -> Tensor:
        """Bucket logits float32 (Q, R, B)."""
        parts = [head(encoder(bags)) for encoder, head in zip(self.encoders, self.heads, strict=True)]
        return torch.cat(parts, dim=1).view(len(bags), self.repetitions, self.buckets)

    def loss(self, batch: Batch) -> Tensor:
        """Cross-entropy of the buckets, averaged over repetitions."""
        logits_QRB = self(batch.bags)
        if self.config.loss == "softmax":
            classes_QR = self.table_RL[:, batch.positives.labels].T
            return losses.softmax_cross_entropy(logits_QRB, classes_QR) / self.repetitions
        targets_QB = self.bucket_targets(batch.positives, len(batch))
        return losses.binary_cross_entropy(logits_QRB.flatten(1), targets_QB) / self.repetitions

    def bucket_targets(self, positives: Positives, queries: int) -> Tensor:
        """A bucket's target is the largest relevance among its true labels, at most 1: float32 (Q, R * B)."""
        starts_R1 = torch.arange(self.repetitions, device=self.table_RL.device)[:, None] * self.buckets
        columns_RP = self.table_RL[:, positives.labels] + starts_R1
        cells = positives.queries * (self.repetitions * self.buckets) + columns_RP
        targets = torch.zeros(queries * self.repetitions * self.buckets, device=cells.device)
        relevances = positives.relevances.clamp(max=1).repeat(self.repetitions)
        targets.scatter_reduce_(0, cells.flatten(), relevances, reduce="amax")
        return targets.view(queries, -1)

    def score(self, bags: Bags) -> Tensor:
        """Merged bucket scores of every label."""
        return merge(self(bags), self.table_RL, self.config.aggregation, softmax=self.config.loss == "softmax")

    def activations_per_row(self) -> int:
        """Logits, targets and three more arrays of their size on the way to the loss; the encoders' layers."""
        layers = sum(encoder.activations_per_row() for encoder in self.own_encoders())
        return 5 * self.repetitions * self.buckets + layers

    def scoring_floats(self, queries: int, label_count: int) -> int:
        """Logits and their copy in one piece; the sum so far and the repetition to add."""
        return 2 * queries * (self.repetitions * self.buckets + label_count)

    def table_bytes(self, dataset: Dataset) -> int:
        """The table as it is kept and as it is read."""
        return self.repetitions * self.label_count * (np.int32().nbytes + np.int64().nbytes)


def merge(logits_QRB: Tensor, table_RL: Tensor, aggregation: Aggregation, *, softmax: bool) -> Tensor:
    """Label scores from bucket logits.

    ``sum_logits`` sums logits (what the authors' released code does for multi-label data); the others work on bucket
    probabilities: ``mean_prob`` averages, ``unbiased`` is B / (B - 1) * (mean - 1 / B) (theorem 1 of the paper),
    ``min`` and ``median`` are the count-min and count-median estimators.

    Args:
        logits_QRB: bucket logits.
        table_RL: bucket of each label in each repetition.
        aggregation: the estimator.
        softmax: whether probabilities come from a softmax over buckets rather than from a sigmoid.

    Returns:
        float32 (Q, L).
    """
    repetitions, buckets = logits_QRB.shape[1:]
    if aggregation == "sum_logits":
        return reduce(Tensor.add_, _gather(logits_QRB, table_RL))
    probabilities_QRB = logits_QRB.softmax(dim=2) if softmax else logits_QRB.sigmoid()
    gathered = _gather(probabilities_QRB, table_RL)
    if aggregation == "min":
        return reduce(torch.minimum, gathered)
    if aggregation == "median":
        return torch.stack(list(gathered)).quantile(0.5, dim=0)
    mean_QL = reduce(Tensor.add_, gathered) / repetitions
    return mean_QL if aggregation == "mean_prob" else (mean_QL - 1 / buckets) * (buckets / (buckets - 1))


def _gather(values_QRB: Tensor, table_RL: Tensor) -> Iterator[Tensor]:
    """Each repetition's value of every label, (Q, L) one after the other: all at once would be R times the memory."""
    for repetition, columns_L in enumerate(table_RL):
        yield values_QRB[:, repetition].index_select(1, columns_L)
