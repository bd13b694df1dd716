"""Recipes: named functions that return a whole run configuration.

A run differs from its recipe by nothing but what the user typed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from training.augment.gandalf import GandalfConfig, gandalf
from training.data.dataset import Dataset, load_dataset
from training.data.records import Source
from training.encoders import BagConfig, EncoderConfig, TransformerConfig
from training.methods import METHODS
from training.methods.base import Shape, settled
from training.methods.declare import DeclareConfig
from training.methods.mach import MachConfig
from training.methods.ova import OvaConfig
from training.methods.unidec import UnidecConfig
from training.reranker import RerankerConfig
from training.tokens import TextConfig
from training.vocabulary import VocabularyConfig

AnyMethodConfig = Annotated[MachConfig | DeclareConfig | UnidecConfig | OvaConfig, Field(discriminator="name")]


# A re-ranker is chosen and calibrated on the held-out rows, and learns from them in the end: holding out more costs
# little. A rate of so many rows has a standard error of 1.6 points at most.
RERANKER_HELD_ROWS = 1_000

Precision = Literal["fp32", "bf16", "fp16"]


class TrainingConfig(BaseModel):
    """Options of the training loop."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: int | None = Field(default=None, ge=1, description="None: so many that rows_seen is reached, from 3 to 40")
    rows_seen: int = Field(default=200_000, ge=1, description="training rows that derived epochs add up to")
    batch_size: int | None = Field(default=None, ge=1, description="None: 128 up to 10,000 training rows, else 256")
    learning_rate: float = Field(default=3e-3, gt=0, allow_inf_nan=False, description="peak rate of AdamW")
    table_rate: float = Field(
        default=10.0,
        gt=0,
        allow_inf_nan=False,
        description="the same for embedding tables, as a multiple: most of their rows see few steps",
    )
    adagrad_rate: float = Field(
        default=0.1, gt=0, allow_inf_nan=False, description="peak rate of Adagrad, which moves the labels' classifiers"
    )
    encoder_rate: float = Field(
        default=1.0, gt=0, allow_inf_nan=False, description="the same for the encoder's other weights, as a multiple"
    )
    weight_decay: float = Field(default=0.0, ge=0, allow_inf_nan=False, description="of AdamW")
    schedule: Literal["constant", "linear", "cosine"] = Field(default="linear", description="decay after the warm-up")
    warmup: float = Field(default=0.05, ge=0, lt=1, description="share of all steps in which the rate rises from 0")
    validation_fraction: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="training rows set apart where there is no dev split; None: a twentieth, or with a re-ranker a "
        "fifth of few rows",
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
            "epochs": self.epochs or min(40, max(3, round(self.rows_seen / shape.train_rows))),
            "batch_size": self.batch_size or (128 if shape.train_rows <= 10_000 else 256),
        }
        return self.model_copy(update=updates)


def _vocabulary_of(run: dict[str, Any]) -> VocabularyConfig | None:
    return None if isinstance(run.get("encoder"), TransformerConfig) else VocabularyConfig()


class Part(BaseModel):
    """Which of a run's jobs this is: see `training.parts`.

    Attributes:
        repetition: counted from 0.
        of: repetitions of the whole run.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    repetition: int = Field(ge=0)
    of: int = Field(ge=1)


class RunConfig(BaseModel):
    """Everything that decides a run, beside the data."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: AnyMethodConfig
    encoder: EncoderConfig = BagConfig()
    vocabulary: VocabularyConfig | None = Field(default_factory=_vocabulary_of)
    training: TrainingConfig = TrainingConfig()
    augmentation: GandalfConfig | None = None
    reranker: RerankerConfig | None = None
    part: Part | None = None

    @model_validator(mode="after")
    def _one_tokenizer(self) -> Self:
        if isinstance(self.encoder, TransformerConfig) != (self.vocabulary is None):
            raise ValueError(
                "vocabulary: a transformer brings its own tokenizer (encoder.max_tokens bounds texts), "
                "a bag encoder needs a vocabulary"
            )
        return self

    @property
    def word_classifiers(self) -> RerankerConfig | None:
        """The re-ranker that this run trains: none where it is a part, for what is joined of all parts has one."""
        return self.reranker if self.part is None else None

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


def prepared(run: RunConfig, source: Source) -> tuple[RunConfig, Dataset]:
    """Read the data of a run: the run with its sizes derived, and the data set that it is fitted to.

    Raises:
        DataError: the files are not as their layout promises.
        UnsuitableData: the data lacks what the run needs.
    """
    fraction, seed = run.training.validation_fraction, run.training.seed
    dataset = load_dataset(
        source,
        run.texts,
        validation_fraction=fraction,
        seed=seed,
        in_order=run.word_classifiers is not None,
        # Parts hold out what the whole run does.
        least_held=0 if run.reranker is None else RERANKER_HELD_ROWS,
    )
    resolved = run.resolved(Shape.of(dataset))
    # After the sizes are derived: extra points are no reason for fewer epochs over the others.
    dataset = augmented(resolved, dataset)
    METHODS[resolved.method.name].check_data(resolved.method, dataset)
    return resolved, dataset


def mach() -> RunConfig:
    """MACH with one encoder shared by all repetitions."""
    return RunConfig(method=MachConfig(), encoder=BagConfig(dropout=0.2))


def mach_independent() -> RunConfig:
    """MACH as published: a network of its own for every repetition."""
    return RunConfig(method=MachConfig(networks="independent"), encoder=BagConfig(dropout=0.2))


def declare() -> RunConfig:
    """DECLARE on label rows of unit length, regressed and searched by cosine; near rows weigh more."""
    method = DeclareConfig(loss="cosine", rows="unit", similarity="cosine", vote_temperature=0.04, neighbours=100)
    return RunConfig(method=method, encoder=BagConfig(widths=(512,), dropout=0.2), training=TrainingConfig(epochs=8))


def declare_paper() -> RunConfig:
    """DECLARE as published: squared error on the label rows as given."""
    return RunConfig(method=DeclareConfig(), encoder=BagConfig(dropout=0.2))


def unidec() -> RunConfig:
    """UniDEC on pools of in-batch positives filled up with random labels."""
    training = TrainingConfig(epochs=3, batch_size=512, learning_rate=1e-3, table_rate=3.0)
    return RunConfig(method=UnidecConfig(), encoder=BagConfig(dropout=0.1), training=training)


def unidec_paper() -> RunConfig:
    """UniDEC with its published hyperparameters, over a bag encoder."""
    method = UnidecConfig(
        dimensions=384,
        classifier_loss="decoupled_softmax+bce",
        hard_negatives=6,
        pool_size=3000,
        fill="positives",
        clusters=True,
        classifier_rate=5.0,
    )
    # Rates of 1e-4 for the encoder, 2e-4 for the projections, 1e-3 for the label vectors. The bag's table is no
    # pretrained weight and keeps a rate to learn at.
    training = TrainingConfig(
        epochs=150,
        batch_size=1024,
        learning_rate=2e-4,
        encoder_rate=0.5,
        weight_decay=0.05,
        warmup=0.02,
    )
    return RunConfig(method=method, training=training)


def unidec_transformer() -> RunConfig:
    """UniDEC with its published hyperparameters, over a transformer of MiniLM's size.

    Made for a GPU. The model is downloaded from the Hugging Face hub; `--set encoder.model=FOLDER` takes it from a
    folder.
    """
    paper = unidec_paper()
    training = paper.training.model_copy(update={"precision": "bf16"})
    return RunConfig(method=paper.method, encoder=TransformerConfig(), training=training)


def depsl() -> RunConfig:
    """DEPSL: UniDEC's dual encoder alone, without a vector per label."""
    run = unidec()
    return run.model_copy(update={"method": run.method.model_copy(update={"encoder_weight": 1.0})})


def ova() -> RunConfig:
    """One-vs-all classifiers: over all labels where they are few, else over uniform samples of them."""
    training = TrainingConfig(rows_seen=320_000, learning_rate=1e-3, table_rate=5.0, adagrad_rate=0.1)
    return RunConfig(method=OvaConfig(), encoder=BagConfig(dropout=0.6), training=training)


def ova_full() -> RunConfig:
    """One-vs-all over all labels, without sampling or compression: the reference of DECLARE and ASTRA."""
    return ova().model_copy(update={"method": OvaConfig(negatives="all")})


def ova_pruned() -> RunConfig:
    """One-vs-all pruned to the number of weights that DECLARE's output layer has."""
    return ova().model_copy(update={"method": OvaConfig(negatives="all", weights_kept="declare")})


def astra() -> RunConfig:
    """One-vs-all by mined hard negatives and uniform ones (a patent application exists: US 2025/0371338 A1)."""
    return ova().model_copy(update={"method": OvaConfig(negatives="astra", hard_negatives=10)})


def mach_frozen() -> RunConfig:
    """MACH on the vectors of a pretrained transformer, which is left as it is.

    Its model is downloaded from the Hugging Face hub; `--set encoder.model=FOLDER` takes it from a folder.
    """
    return RunConfig(method=MachConfig(), encoder=TransformerConfig(frozen=True, widths=(500,), dropout=0.2))


def mach_reranked() -> RunConfig:
    """MACH, whose answers word classifiers order anew.

    One narrow layer instead of MACH's own: classifiers make up for what it is less good at alone, in half of the bytes
    and of the time (`training/results.md`).
    """
    return mach().model_copy(update={"encoder": BagConfig(widths=(256,), dropout=0.2), "reranker": RerankerConfig()})


def declare_reranked() -> RunConfig:
    """DECLARE, whose answers word classifiers order anew."""
    return declare().model_copy(update={"reranker": RerankerConfig()})


def unidec_reranked() -> RunConfig:
    """UniDEC, whose answers word classifiers order anew."""
    return unidec().model_copy(update={"reranker": RerankerConfig()})


def ova_reranked() -> RunConfig:
    """One-vs-all, whose answers word classifiers order anew."""
    return ova().model_copy(update={"reranker": RerankerConfig()})


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
    "unidec-paper": unidec_paper,
    "depsl": depsl,
    "ova": ova,
    "ova-full": ova_full,
    "ova-pruned": ova_pruned,
    "astra": astra,
    "mach-frozen": mach_frozen,
    "unidec-transformer": unidec_transformer,
    "mach-reranked": mach_reranked,
    "declare-reranked": declare_reranked,
    "unidec-reranked": unidec_reranked,
    "ova-reranked": ova_reranked,
    "mach-gandalf": mach_gandalf,
    "declare-gandalf": declare_gandalf,
    "unidec-gandalf": unidec_gandalf,
}

# What `--method` stands for.
DEFAULTS = {method: f"{method}-reranked" for method in METHODS}
