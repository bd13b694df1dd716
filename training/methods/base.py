"""The interface that every training method fills, and that the loop, the evaluator and the exporter rely on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, with_config
from scipy.sparse import csr_array
from torch import Tensor, nn

from training.data.batches import Bags, Batch
from training.data.dataset import Dataset
from training.encoders import BagEncoder, Encoder, EncoderConfig
from training.team import ALONE, Team

_T = TypeVar("_T")

Tables = Mapping[str, NDArray[Any]]


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class Shape:
    """What a method's sizes are derived from.

    Attributes:
        input_width: tokens or features V.
        label_count: labels L.
        train_rows: training points N.
        text: whether inputs are texts (weighted by TF-IDF) or features.
        single_label: whether every training point has exactly one label.
    """

    input_width: int
    label_count: int
    train_rows: int
    text: bool
    single_label: bool

    @classmethod
    def of(cls, dataset: Dataset) -> Shape:
        """The shape of a data set."""
        targets = dataset.train.targets
        return cls(
            input_width=dataset.input_width,
            label_count=dataset.label_count,
            train_rows=len(dataset.train),
            text=dataset.card.input == "text",
            single_label=bool((np.diff(targets.indptr) == 1).all()),
        )


def settled(value: _T | None) -> _T:
    """The value of an option that None would leave to be derived.

    Raises:
        ValueError: it has not been derived yet: the configuration is not resolved.
    """
    if value is None:
        raise ValueError("the configuration must be resolved before a model is built from it")
    return value


class MethodConfig(BaseModel):
    """Options of one method; None means "derive from the data's shape"."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def resolved(self, shape: Shape) -> Self:
        """The same options with nothing left to derive."""
        return self


class Model(nn.Module, ABC):
    """One published method: its weights, its loss, its slow exact scorer.

    A model is made in two steps: the constructor makes the weights from sizes alone (so a dry run needs no data
    structures), then `attach` hands it the tables that `make_tables` computed from the data or that an artifact holds.
    """

    Config: ClassVar[type[MethodConfig]]

    # Whether workers can train one model together: the constructor then takes their team as its last argument.
    divides: ClassVar[bool] = False
    team: Team = ALONE

    @classmethod
    @abstractmethod
    def encoder_config(cls, config: Any, encoder: EncoderConfig, shape: Shape) -> EncoderConfig:
        """The encoder's options with its sizes derived."""

    @classmethod
    def check_data(cls, config: Any, dataset: Dataset) -> None:
        """Refuse data that the method cannot learn from; by default it can learn from any.

        Raises:
            UnsuitableData: the data lacks what the method needs.
        """

    @classmethod
    def make_tables(cls, config: Any, dataset: Dataset, seed: int) -> Tables:
        """Arrays that belong to the model and are not learned by gradient; by default there are none.

        Raises:
            UnsuitableData: the data lacks what the method needs.
        """
        return {}

    @classmethod
    def kept_tables(cls, tables: Tables, weights: Mapping[str, Tensor]) -> Tables:
        """The tables that belong to the weights of the kept epoch; by default those that the run began with.

        Args:
            tables: as made by `make_tables`.
            weights: the model's state at the end of that epoch.
        """
        return tables

    def attach(self, tables: Tables) -> None:
        """Take the tables over, as made by `make_tables`.

        Raises:
            ValueError: they are those of another model.
        """
        if tables:
            raise ValueError(f"expected no tables, found {', '.join(sorted(tables))}")

    def initialise(self, dataset: Dataset) -> None:
        """Start from the data's statistics, IDF among them; called once, before the first step."""
        rows = self.encoded_rows(dataset)
        for encoder in self.own_encoders():
            encoder.initialise(dataset)
            for matrix in rows:
                encoder.remember(matrix)

    def own_encoders(self) -> list[Encoder]:
        """The encoders that the model is made of."""
        return [module for module in self.modules() if isinstance(module, Encoder)]

    def encoded_rows(self, dataset: Dataset) -> list[csr_array]:
        """What is encoded again and again in a run beside the training rows: matrices float32 CSR (N, V)."""
        return [dataset.validation.inputs]

    def label_texts_per_step(self) -> int:
        """Label texts that a training step encodes beside the batch's rows, for the memory estimate."""
        return 0

    def begin_epoch(self, epoch: int, dataset: Dataset) -> None:
        """Renew what is derived from the weights as they are now; by default there is nothing.

        Called before each epoch's first step, epochs counted from 1, with torch's generator seeded for the epoch.
        """

    def renewed(self) -> dict[str, Tensor]:
        """What `begin_epoch` made and later epochs still read: kept in the checkpoint, but not in the artifact."""
        return {}

    def take_renewed(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue a run with what `renewed` gave."""

    def order(self, rows: int, batch_size: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """The order of an epoch's rows, which is then cut into batches: by default a random one."""
        return rng.permutation(rows)

    @abstractmethod
    def loss(self, batch: Batch) -> Tensor:
        """Scalar training loss of a batch."""

    @abstractmethod
    def score(self, bags: Bags) -> Tensor:
        """Scores of all labels, float32 (Q, L): the reference that every fast decoder is compared to."""

    def scores_per_query(self, label_count: int) -> int:
        """Floats that `score` holds for one query: a score for each label, unless the method needs more."""
        return label_count

    def classifiers(self) -> list[nn.Parameter]:
        """Matrices with a row for each label, which Adagrad moves by rows; by default none."""
        return []

    def label_rows(self) -> list[nn.Parameter]:
        """Matrices with a row for each label, of which a worker has those of its own labels; by default none."""
        return []

    def row_groups(self, learning_rate: float, table_rate: float, adagrad_rate: float) -> list[dict[str, Any]]:
        """Groups for Adagrad: embedding tables that are updated by rows, and classifiers."""
        tables = [module.bag.weight for module in self.modules() if isinstance(module, BagEncoder) and module.by_rows]
        groups = [(tables, learning_rate * table_rate), (self.classifiers(), adagrad_rate)]
        return [{"params": matrices, "lr": rate} for matrices, rate in groups if matrices]

    def parameter_groups(self, learning_rate: float, table_rate: float, encoder_rate: float) -> list[dict[str, Any]]:
        """Groups for AdamW, of weights that are not frozen.

        Args:
            learning_rate: peak rate of what stands above the encoders.
            table_rate: that of embedding tables, as a multiple.
            encoder_rate: that of the encoders' own weights (see `Encoder.own_weights`), as a multiple.
        """
        known = {id(weight) for group in self.row_groups(1, 1, 1) for weight in group["params"]}
        known |= {id(weight) for weight in self.parameters() if not weight.requires_grad}
        encoders = [weight for encoder in self.own_encoders() for weight in encoder.own_weights()]
        tables = [module.weight for module in self.modules() if isinstance(module, nn.Embedding | nn.EmbeddingBag)]
        groups = []
        for weights, rate in ((encoders, encoder_rate), (tables, table_rate), (list(self.parameters()), 1.0)):
            new = [weight for weight in weights if id(weight) not in known]
            known |= {id(weight) for weight in new}
            groups.append({"params": new, "lr": learning_rate * rate})
        return [group for group in groups if group["params"]]

    @abstractmethod
    def activations_per_row(self) -> int:
        """Floats that a training step holds per batch row beside the weights, for the memory estimate."""

    def activations_per_batch(self) -> int:
        """Floats that a training step holds whatever its rows, for the memory estimate; by default none."""
        return 0

    def exchanged_floats(self, dataset: Dataset) -> int:
        """Floats that a worker holds of others' vectors between epochs, for the memory estimate; by default none."""
        return 0

    def table_bytes(self, dataset: Dataset) -> int:
        """Bytes of the tables while training, for the memory estimate; by default none."""
        return 0

    def making_bytes(self, dataset: Dataset) -> int:
        """Bytes at the peak of `make_tables`, for the memory estimate; by default those of the tables."""
        return self.table_bytes(dataset)

    def scoring_floats(self, queries: int, label_count: int) -> int:
        """Floats that scoring so many queries holds, for the memory estimate: by default two for each score."""
        return 2 * queries * self.scores_per_query(label_count)

    def tensor(self, array: NDArray[Any]) -> Tensor:
        """An array on the model's device; on the CPU it shares the array's memory where it may be written to."""
        device = next(self.parameters()).device
        return torch.from_numpy(array).to(device) if array.flags.writeable else torch.tensor(array, device=device)
