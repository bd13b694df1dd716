"""Recipes: named functions that return a whole run configuration.

A run differs from its recipe by nothing but what the user typed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from training.augment.gandalf import GandalfConfig, gandalf
from training.data.dataset import Dataset
from training.encoders import BagConfig, EncoderConfig
from training.methods import METHODS
from training.methods.base import Shape
from training.methods.declare import DeclareConfig
from training.methods.mach import MachConfig
from training.methods.unidec import UnidecConfig
from training.vocabulary import VocabularyConfig

AnyMethodConfig = Annotated[MachConfig | DeclareConfig | UnidecConfig, Field(discriminator="name")]


class TrainingConfig(BaseModel):
    """Options of the training loop."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: int | None = Field(default=None, ge=1, description="None: so many that 200,000 rows are seen, from 3 to 40")
    batch_size: int | None = Field(default=None, ge=1, description="None: 128 up to 10,000 training rows, else 256")
    learning_rate: float = Field(default=3e-3, gt=0, allow_inf_nan=False, description="peak rate of AdamW")
    table_rate: float = Field(
        default=10.0,
        gt=0,
        allow_inf_nan=False,
        description="the same for embedding tables, as a multiple: most of their rows see few steps",
    )
    weight_decay: float = Field(default=0.0, ge=0, allow_inf_nan=False, description="of AdamW")
    schedule: Literal["constant", "linear", "cosine"] = Field(default="linear", description="decay after the warm-up")
    warmup: float = Field(default=0.05, ge=0, lt=1, description="share of all steps in which the rate rises from 0")
    validation_fraction: float = Field(
        default=0.05, gt=0, lt=1, description="training rows set apart where there is no dev split"
    )
    selection: str = Field(
        default="nDCG@5",
        pattern=r"^(P|nDCG|PSP|R|RP|coverage)@[135]$",
        description="measure of the validation rows that chooses the epoch whose weights are kept",
    )
    seed: int = Field(default=0, ge=0, lt=2**31, description="of everything drawn: weights, order, dropout, pools")

    def resolved(self, shape: Shape) -> TrainingConfig:
        """Epochs and batch size from N."""
        updates = {
            "epochs": self.epochs or min(40, max(3, round(200_000 / shape.train_rows))),
            "batch_size": self.batch_size or (128 if shape.train_rows <= 10_000 else 256),
        }
        return self.model_copy(update=updates)


class RunConfig(BaseModel):
    """Everything that decides a run, beside the data."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: AnyMethodConfig
    encoder: EncoderConfig = BagConfig()
    vocabulary: VocabularyConfig = VocabularyConfig()
    training: TrainingConfig = TrainingConfig()
    augmentation: GandalfConfig | None = None

    def resolved(self, shape: Shape) -> RunConfig:
        """The same run with every derived size filled in."""
        method = self.method.resolved(shape)
        encoder = METHODS[method.name].encoder_config(method, self.encoder, shape)
        return self.model_copy(update={"method": method, "encoder": encoder, "training": self.training.resolved(shape)})


def augmented(run: RunConfig, dataset: Dataset) -> Dataset:
    """The data set that a resolved run is fitted to.

    Raises:
        UnsuitableData: it lacks what the run's augmentation needs.
    """
    return dataset if run.augmentation is None else gandalf(dataset, run.augmentation)


def mach() -> RunConfig:
    """MACH with one encoder shared by all repetitions."""
    return RunConfig(method=MachConfig(), encoder=BagConfig(dropout=0.2))


def mach_independent() -> RunConfig:
    """MACH as published: a network of its own for every repetition."""
    return RunConfig(method=MachConfig(networks="independent"), encoder=BagConfig(dropout=0.2))


def declare() -> RunConfig:
    """DECLARE on label rows of unit length, regressed by cosine: what its inner-product recovery rewards."""
    return RunConfig(method=DeclareConfig(loss="cosine", rows="unit", neighbours=50), encoder=BagConfig(dropout=0.2))


def declare_paper() -> RunConfig:
    """DECLARE as published: squared error on the label rows as given."""
    return RunConfig(method=DeclareConfig(), encoder=BagConfig(dropout=0.2))


def unidec() -> RunConfig:
    """UniDEC on pools of in-batch positives filled up with random labels."""
    training = TrainingConfig(epochs=3, batch_size=512, learning_rate=1e-3, table_rate=3.0)
    return RunConfig(method=UnidecConfig(), encoder=BagConfig(dropout=0.1), training=training)


def mach_gandalf() -> RunConfig:
    """MACH on label texts as well as on the training points."""
    return mach().model_copy(update={"augmentation": GandalfConfig()})


def declare_gandalf() -> RunConfig:
    """DECLARE on label texts as well as on the training points."""
    return declare().model_copy(update={"augmentation": GandalfConfig()})


def unidec_gandalf() -> RunConfig:
    """UniDEC on label texts as well as on the training points."""
    return unidec().model_copy(update={"augmentation": GandalfConfig()})


RECIPES: dict[str, Callable[[], RunConfig]] = {
    "mach": mach,
    "mach-independent": mach_independent,
    "declare": declare,
    "declare-paper": declare_paper,
    "unidec": unidec,
    "mach-gandalf": mach_gandalf,
    "declare-gandalf": declare_gandalf,
    "unidec-gandalf": unidec_gandalf,
}
