"""Recipes: named functions that return a whole run configuration.

A run differs from its recipe by nothing but what the user typed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from training.augment.gandalf import GandalfConfig, gandalf
from training.data.dataset import Dataset
from training.encoders import BagConfig, EncoderConfig, TransformerConfig
from training.methods import METHODS
from training.methods.base import Shape, settled
from training.methods.declare import DeclareConfig
from training.methods.mach import MachConfig
from training.methods.unidec import UnidecConfig
from training.tokens import TextConfig
from training.vocabulary import VocabularyConfig

AnyMethodConfig = Annotated[MachConfig | DeclareConfig | UnidecConfig, Field(discriminator="name")]


Precision = Literal["fp32", "bf16", "fp16"]


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
    encoder_rate: float = Field(
        default=1.0,
        gt=0,
        allow_inf_nan=False,
        description="the same for the encoder's other weights: of a transformer all, which were trained before",
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
    accumulate: int = Field(default=1, ge=1, description="batches whose gradients make one step")
    precision: Precision = Field(
        default="fp32", description="of products in a training step; weights stay fp32. fp16 needs a CUDA device"
    )

    def resolved(self, shape: Shape) -> TrainingConfig:
        """Epochs and batch size from N."""
        updates = {
            "epochs": self.epochs or min(40, max(3, round(200_000 / shape.train_rows))),
            "batch_size": self.batch_size or (128 if shape.train_rows <= 10_000 else 256),
        }
        return self.model_copy(update=updates)


def _vocabulary_of(run: dict[str, Any]) -> VocabularyConfig | None:
    return None if isinstance(run.get("encoder"), TransformerConfig) else VocabularyConfig()


class RunConfig(BaseModel):
    """Everything that decides a run, beside the data."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: AnyMethodConfig
    encoder: EncoderConfig = BagConfig()
    vocabulary: VocabularyConfig | None = Field(default_factory=_vocabulary_of)
    training: TrainingConfig = TrainingConfig()
    augmentation: GandalfConfig | None = None

    @model_validator(mode="after")
    def _one_tokenizer(self) -> Self:
        if isinstance(self.encoder, TransformerConfig) != (self.vocabulary is None):
            raise ValueError(
                "vocabulary: a transformer brings its own tokenizer (encoder.max_tokens bounds texts), "
                "a bag encoder needs a vocabulary"
            )
        return self

    @property
    def texts(self) -> TextConfig:
        """How texts become token ids."""
        return self.encoder if isinstance(self.encoder, TransformerConfig) else settled(self.vocabulary)

    def resolved(self, shape: Shape) -> RunConfig:
        """The same run with every derived size filled in.

        Raises:
            EncoderError: a pretrained model cannot be had.
        """
        method = self.method.resolved(shape)
        encoder = METHODS[method.name].encoder_config(method, self.encoder, shape)
        if isinstance(encoder, TransformerConfig):
            encoder = encoder.resolved()
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


def mach_frozen() -> RunConfig:
    """MACH on the vectors of a pretrained transformer, which is left as it is.

    Its model is downloaded from the Hugging Face hub; `--set encoder.model=FOLDER` takes it from a folder.
    """
    return RunConfig(method=MachConfig(), encoder=TransformerConfig(frozen=True, widths=(500,), dropout=0.2))


def unidec_transformer() -> RunConfig:
    """UniDEC on a transformer of MiniLM's size, which is trained with it at the published rates.

    Made for a GPU. Its model is downloaded from the Hugging Face hub; `--set encoder.model=FOLDER` takes it from a
    folder.
    """
    # The paper's rates: 1e-4 for the encoder, 2e-4 for both projections, 1e-3 for the classifier's vectors.
    training = TrainingConfig(
        epochs=10, batch_size=512, learning_rate=2e-4, encoder_rate=0.5, table_rate=5.0, precision="bf16"
    )
    return RunConfig(method=UnidecConfig(pool_size=3000), encoder=TransformerConfig(), training=training)


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
    "mach-frozen": mach_frozen,
    "unidec-transformer": unidec_transformer,
    "mach-gandalf": mach_gandalf,
    "declare-gandalf": declare_gandalf,
    "unidec-gandalf": unidec_gandalf,
}
