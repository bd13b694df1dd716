"""UniDEC: a dual encoder and a classifier trained together on a pool of picked labels.

UniDEC, WWW 2025 (DEPSL is its encoder alone). Queries and label texts share one encoder with two heads: the encoder
head is matched with the same head's view of the label text, the classifier head with a free vector per label. Either is
trained by a loss over the labels picked for the batch; from some epoch on batches are clusters of similar queries, and
labels that are mistaken for true ones are picked, too. At inference both heads, normalised, are concatenated on the
query's and on the label's side; or one of them answers alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from scipy.sparse import csr_array
from torch import Tensor, nn
from torch.nn import functional as F

from training import losses
from training.data.batches import Bags, Batch
from training.data.dataset import Dataset, UnsuitableData
from training.encoders import EncoderConfig, new_encoder
from training.losses import PoolLoss
from training.methods.base import MethodConfig, Model, Shape, Tables, settled
from training.negatives.clusters import cluster_order, cut
from training.negatives.hard import draw_hard, mine
from training.negatives.in_batch import Fill, Pool, draw_pool
from training.team import ALONE, Team

ROWS_AT_ONCE = 8192
# What a loss holds of the scores' size: those of the negatives, and their exponentials.
ARRAYS_OF_A_LOSS = 2
# Batches are cut from similar clusters that stand side by side, so that this need not be the batch size.
CLUSTER_ROWS = 16

Inference = Literal["both", "encoder", "classifier"]


class UnidecConfig(MethodConfig):
    """Options of UniDEC."""

    name: Literal["unidec"] = "unidec"
    dimensions: int = Field(default=128, ge=1, description="width of each of the two heads")
    dropout: float = Field(default=0.1, ge=0, lt=1, description="of both projections")
    label_projection: Literal["shared", "own"] = Field(
        default="shared",
        description="what label texts pass above the encoder: the queries' projection, or one of their own, which a "
        "relation with a direction needs",
    )
    encoder_weight: float = Field(
        default=0.5, ge=0, le=1, description="lambda: share of the encoder head's loss, the rest is the classifier's"
    )
    encoder_loss: PoolLoss = Field(default="decoupled_softmax", description="of the encoder head")
    classifier_loss: PoolLoss = Field(default="decoupled_softmax", description="of the classifier head")
    symmetric: bool = Field(default=True, description="add the label-to-query direction to the encoder head's loss")
    symmetric_classifier: bool = Field(default=False, description="the same for the classifier head's loss")
    logit_scale: float = Field(default=18.0, gt=0, description="multiplier of the scores of both heads")
    positives_per_query: int = Field(default=3, ge=1, description="beta: true labels drawn into the pool per query")
    hard_negatives: int = Field(default=0, ge=0, description="eta: mined labels drawn into the pool per query")
    pool_size: int = Field(default=8000, ge=1, description="labels a batch is trained against")
    fill: Fill = Field(
        default="uniform", description="what else fills the pool: labels at random, or the batch's other true labels"
    )
    clusters: bool = Field(default=False, description="whether batches are clusters of similar queries")
    start_epoch: int = Field(default=5, ge=1, description="epoch from which there are clusters and hard negatives")
    refresh: int = Field(default=5, ge=1, description="tau: epochs after which they are found anew")
    classifier_rate: float = Field(
        default=3.0,
        gt=0,
        allow_inf_nan=False,
        description="peak rate of the label vectors, as a multiple of training.learning_rate",
    )
    inference: Inference | None = Field(
        default=None, description="heads that answer; None: those that are trained, which encoder_weight 0 or 1 limits"
    )

    @model_validator(mode="after")
    def _answers_by_trained_heads(self) -> Self:
        if self.inference not in (None, self.trained) and self.trained != "both":
            raise ValueError(
                f"inference {self.inference}: with an encoder_weight of {self.encoder_weight:g} "
                f"the {self.trained} head alone is trained"
            )
        return self

    @property
    def trained(self) -> Inference:
        """The heads that there are: a weight of 0 or 1 leaves one out."""
        if self.encoder_weight in (0, 1):
            return "encoder" if self.encoder_weight else "classifier"
        return "both"

    def resolved(self, shape: Shape) -> UnidecConfig:
        """Inference by the heads that are trained."""
        return self.model_copy(update={"inference": self.inference or self.trained})


class Unidec(Model):
    """UniDEC; ``config`` and ``encoder`` must be resolved."""

    Config = UnidecConfig
    divides = True
    label_counts_L: Tensor

    def __init__(self, config: UnidecConfig, encoder: EncoderConfig, shape: Shape, team: Team = ALONE) -> None:
        super().__init__()
        self.config, self.team = config, team
        self.label_count, self.input_width = shape.label_count, shape.input_width
        self.encoder = new_encoder(encoder, shape)
        self.dropout = nn.Dropout(config.dropout)
        width = self.encoder.output_width
        if config.trained != "classifier":
            self.encoder_head = nn.Linear(width, config.dimensions)
        if config.trained != "classifier" and config.label_projection == "own":
            self.label_head = nn.Linear(width, config.dimensions)
        if config.trained != "encoder":
            self.classifier_head = nn.Linear(width, config.dimensions)
            self.classifier = nn.Embedding(team.count(shape.label_count), config.dimensions)
            nn.init.xavier_uniform_(self.classifier.weight)
        self._label_vectors_LD: Tensor | None = None
        self._order_N: NDArray[np.int64] | None = None
        self._mined_NH: Tensor | None = None

    @classmethod
    def encoder_config(cls, config: UnidecConfig, encoder: EncoderConfig, shape: Shape) -> EncoderConfig:
        """One layer of 512 units below the heads."""
        return encoder if encoder.widths is not None else encoder.model_copy(update={"widths": (512,)})

    @classmethod
    def check_data(cls, config: UnidecConfig, dataset: Dataset) -> None:
        """Ask for label texts, unless the classifier is trained alone."""
        _label_bags(config, dataset)

    @classmethod
    def make_tables(cls, config: UnidecConfig, dataset: Dataset, seed: int) -> Tables:
        """Label texts as bags and label frequencies.

        Raises:
            UnsuitableData: the labels have no texts, and the encoder head needs them.
        """
        bags = _label_bags(config, dataset)
        return {
            "labels.indptr": bags.indptr,
            "labels.indices": bags.indices,
            "labels.data": bags.data,
            "labels.counts": dataset.label_counts,
        }

    def attach(self, tables: Tables) -> None:
        """Take label bags, a worker those of its own labels, and frequencies."""
        csr = (tables["labels.data"], tables["labels.indices"], tables["labels.indptr"])
        self.label_bags = self._own_rows(csr_array(csr, shape=(self.label_count, self.input_width)))
        self.register_buffer("label_counts_L", self.tensor(tables["labels.counts"]), persistent=False)

    @torch.no_grad()
    def begin_epoch(self, epoch: int, dataset: Dataset) -> None:
        """Find clusters and hard negatives, by the encoder head where there is one, in the epochs that want it."""
        config = self.config
        since = epoch - config.start_epoch
        if since < 0 or since % config.refresh or not (config.clusters or config.hard_negatives):
            return
        self.eval()
        heads: Inference = "classifier" if config.trained == "classifier" else "encoder"
        queries_ND = self._vectors_of(dataset.train.inputs, heads)
        if config.clusters:
            with self.team.common_draws():
                seed = int(torch.randint(2**31, ()))
            all_ND = self.team.at_first(torch.from_numpy(queries_ND)).numpy()
            self._order_N = self.team.decided(lambda: cluster_order(all_ND, CLUSTER_ROWS, np.random.default_rng(seed)))
        if config.hard_negatives:
            labels_LD = self.team.whole(self.label_vectors(heads).cpu()).numpy()
            count = config.hard_negatives * config.refresh
            self._mined_NH = torch.from_numpy(mine(queries_ND, labels_LD, dataset.train.targets, count))

    def renewed(self) -> dict[str, Tensor]:
        """The order of rows and the mined labels, if there are any."""
        order = {} if self._order_N is None else {"order": torch.from_numpy(self._order_N)}
        return order if self._mined_NH is None else order | {"mined": self.team.at_first(self._mined_NH)}

    def take_renewed(self, tensors: Mapping[str, Tensor]) -> None:
        """See `Model`."""
        self._order_N = tensors["order"].numpy() if "order" in tensors else None
        self._mined_NH = tensors["mined"][self.team.mine].contiguous() if "mined" in tensors else None

    def order(self, rows: int, batch_size: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Clusters as batches, once there are any."""
        return super().order(rows, batch_size, rng) if self._order_N is None else cut(self._order_N, batch_size, rng)

    def encode(self, hidden_QD: Tensor) -> Tensor:
        """The encoder head of queries: projection, tanh, dropout, unit length."""
        return F.normalize(self.dropout(torch.tanh(self.encoder_head(hidden_QD))), dim=1)

    def encode_labels(self, hidden_LD: Tensor) -> Tensor:
        """The encoder head of label texts."""
        if self.config.label_projection == "shared":
            return self.encode(hidden_LD)
        return F.normalize(self.dropout(torch.tanh(self.label_head(hidden_LD))), dim=1)

    def classify(self, hidden_QD: Tensor) -> Tensor:
        """The classifier head: projection and dropout; its length is free in training."""
        projected_QD: Tensor = self.dropout(self.classifier_head(hidden_QD))
        return projected_QD

    def loss(self, batch: Batch) -> Tensor:
        """The losses of both heads over the batch's pool, weighted."""
        config, team = self.config, self.team
        pool = self._pool(batch)
        places_P = team.place(pool.labels_P)
        total = torch.zeros((), device=pool.labels_P.device)
        if config.trained == "classifier":
            hidden_QD = self.encoder(batch.bags)
        else:
            # In one pass: the gradient of an embedding table is as large as the table.
            hidden = self.encoder(batch.bags + self._label_bags(places_P))
            hidden_QD, hidden_PD = hidden.split([len(batch.bags), len(places_P)])
            encoded_QD = team.joined(self.encode(hidden_QD), batch.rows)
            logits_QP = config.logit_scale * encoded_QD @ self.encode_labels(hidden_PD).T
            given = config.encoder_loss, logits_QP, pool.targets_QP
            loss = losses.pool_loss(*given, symmetric=config.symmetric, team=team)
            total = total + config.encoder_weight * loss
        if config.trained != "encoder":
            classifier_PD = self.dropout(self.classifier(places_P))
            classified_QD = team.joined(self.classify(hidden_QD), batch.rows)
            logits_QP = config.logit_scale * classified_QD @ classifier_PD.T
            given = config.classifier_loss, logits_QP, pool.targets_QP
            loss = losses.pool_loss(*given, symmetric=config.symmetric_classifier, team=team)
            total = total + (1 - config.encoder_weight) * loss
        return total

    def _pool(self, batch: Batch) -> Pool:
        """The pool's labels, of which a worker gets its own."""
        config = self.config
        hard = None
        mined_QH = None
        if self._mined_NH is not None:
            mined_QH = self._mined_NH[torch.from_numpy(self.team.places(batch.rows))].to(self.label_counts_L.device)
            mined_QH = self.team.joined(mined_QH, batch.rows)
        per_query, size = config.positives_per_query, config.pool_size
        with self.team.common_draws():
            if mined_QH is not None:
                hard = draw_hard(mined_QH, config.hard_negatives)
            given = batch.positives, len(batch), per_query, size, self.label_counts_L, hard, config.fill
            return draw_pool(*given, own=self.team.own)

    def query_vectors(self, hidden_QD: Tensor, heads: Inference | None = None) -> Tensor:
        """Queries in the space that is searched, unit vectors float32 (Q, D), of both heads (Q, 2D).

        An inner product there is the heads' cosine, of both heads the mean of their cosines.

        Args:
            hidden_QD: what the encoder gives.
            heads: None for those that answer.
        """
        heads = heads or settled(self.config.inference)
        parts = [] if heads == "classifier" else [self.encode(hidden_QD)]
        parts += [] if heads == "encoder" else [F.normalize(self.classify(hidden_QD), dim=1)]
        joined_QD: Tensor = torch.cat(parts, dim=1) / len(parts) ** 0.5
        return joined_QD

    def label_vectors(self, heads: Inference | None = None) -> Tensor:
        """Labels in the same space, a worker's own ones, float32 (L, D) or (L, 2D)."""
        heads = heads or settled(self.config.inference)
        parts = []
        if heads != "classifier":
            rows_L = torch.arange(self.label_bags.shape[0], device=self.label_counts_L.device)
            blocks = torch.split(rows_L, ROWS_AT_ONCE)
            parts.append(torch.cat([self.encode_labels(self.encoder(self._label_bags(rows))) for rows in blocks]))
        if heads != "encoder":
            parts.append(F.normalize(self.classifier.weight, dim=1))
        return torch.cat(parts, dim=1).div_(len(parts) ** 0.5)

    def kept_label_vectors(self) -> Tensor:
        """Those of the heads that answer, encoded once for as long as the weights stay what they are."""
        if self._label_vectors_LD is None:
            self._label_vectors_LD = self.label_vectors()
        return self._label_vectors_LD

    def score(self, bags: Bags) -> Tensor:
        """Inner products in the space that is searched."""
        scores_QL: Tensor = self.query_vectors(self.encoder(bags)) @ self.kept_label_vectors().T
        return scores_QL

    def train(self, mode: bool = True) -> Self:
        """Switch modes; label vectors kept for scoring are dropped, since weights may change."""
        self._label_vectors_LD = None
        return super().train(mode)

    def parameter_groups(self, learning_rate: float, table_rate: float, encoder_rate: float) -> list[dict[str, Any]]:
        """The classifier's label vectors have a rate of their own."""
        groups = super().parameter_groups(learning_rate, table_rate, encoder_rate)
        if self.config.trained == "encoder":
            return groups
        labels = self.classifier.weight
        for group in groups:
            group["params"] = [weight for weight in group["params"] if weight is not labels]
        return [*groups, {"params": [labels], "lr": learning_rate * self.config.classifier_rate}]

    def label_rows(self) -> list[nn.Parameter]:
        """The classifier's label vectors."""
        return [] if self.config.trained == "encoder" else list(self.classifier.parameters())

    def encoded_rows(self, dataset: Dataset) -> list[csr_array]:
        """Label texts too: every step encodes those of its pool, every measurement all."""
        return [*super().encoded_rows(dataset), self._own_rows(_label_bags(self.config, dataset))]

    def label_texts_per_step(self) -> int:
        """The pool's that a worker has, unless the classifier is all there is."""
        return 0 if self.config.trained == "classifier" else self.team.count(self._pool_labels())

    def activations_per_row(self) -> int:
        """Targets and scores of the heads against the pool, what their losses keep, and the encoder's layers."""
        config, arrays = self.config, 1
        if config.trained != "classifier":
            arrays += 1 + ARRAYS_OF_A_LOSS * (1 + config.symmetric) * len(config.encoder_loss.split("+"))
        if config.trained != "encoder":
            arrays += 1 + ARRAYS_OF_A_LOSS * (1 + config.symmetric_classifier) * len(config.classifier_loss.split("+"))
        return arrays * self._pool_labels() + self._activations_per_text(heads=2)

    def activations_per_batch(self) -> int:
        """The pool's labels pass the encoder and its head too, unless the classifier is trained alone."""
        return self.label_texts_per_step() * self._activations_per_text(heads=1)

    def _pool_labels(self) -> int:
        """Distinct labels of a pool, as many as are expected of so many draws."""
        return round(self.label_count * (1 - (1 - 1 / self.label_count) ** self.config.pool_size))

    def _activations_per_text(self, heads: int) -> int:
        return self.encoder.activations_per_row() + 4 * heads * self.config.dimensions

    def scoring_floats(self, queries: int, label_count: int) -> int:
        """Label vectors while they are joined; later beside the scores."""
        own = self.team.count(label_count)
        vectors = (2 if self.config.inference == "both" else 1) * own * self.config.dimensions
        block = min(ROWS_AT_ONCE, own) * self.encoder.activations_per_row()
        return vectors + max(vectors, 2 * queries * own, block)

    def exchanged_floats(self, dataset: Dataset) -> int:
        """Vectors of all labels where negatives are mined; on the first worker, of all rows for clusters."""
        labels = self.label_count if self.config.hard_negatives else 0
        rows = len(dataset.train) * self.team.size if self.config.clusters else 0
        return max(labels, rows) * self.config.dimensions

    def table_bytes(self, dataset: Dataset) -> int:
        """The mined labels of every row, where they are wanted; what else there is belongs to the data set."""
        mined = self.config.hard_negatives * self.config.refresh
        return len(dataset.train) * mined * np.int32().nbytes

    def _vectors_of(self, inputs: csr_array, heads: Inference) -> NDArray[np.float32]:
        """Query vectors of all rows of a matrix."""
        vectors_ND = np.empty((inputs.shape[0], self.config.dimensions), dtype=np.float32)
        for start in range(0, len(vectors_ND), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            bags = Bags.from_csr(inputs[rows], self.label_counts_L.device)
            vectors_ND[rows] = self.query_vectors(self.encoder(bags), heads).cpu().numpy()
        return vectors_ND

    def _own_rows(self, label_bags: csr_array) -> csr_array:
        return label_bags if self.team is ALONE else label_bags[self.team.mine]

    def _label_bags(self, places_P: Tensor) -> Bags:
        return Bags.from_csr(self.label_bags[places_P.cpu().numpy()], places_P.device)


def _label_bags(config: UnidecConfig, dataset: Dataset) -> csr_array:
    if dataset.label_bags is not None:
        return dataset.label_bags
    if config.trained == "classifier":
        return csr_array(([], ([], [])), shape=(dataset.label_count, dataset.input_width))
    raise UnsuitableData(
        f"{dataset.card.name}: unidec encodes label texts, and this data set has none; "
        "mach, declare and unidec's classifier alone (method.encoder_weight 0) work without them"
    )
