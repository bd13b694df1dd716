"""The artifact: what training leaves on disk and the exporter reads.

A folder of `config.json`, `model.safetensors`, `tokenizer.json` (texts only), `labels.jsonl`, `samples.jsonl`,
`tables/*.npy`, `metrics.json` and `history.jsonl`. Names inside are short and stable ("mach"); nothing holds a class
path or a pickle.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor

from training.data.card import Card
from training.data.dataset import Dataset, Query
from training.methods import METHODS
from training.methods.base import Model, Shape
from training.recipes import RunConfig

SCHEMA_VERSION = 1
LIBRARIES = ("xmcserve", "torch", "tokenizers", "numpy", "scipy")

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
TOKENIZER = "tokenizer.json"
LABELS = "labels.jsonl"
SAMPLES = "samples.jsonl"
TABLES = "tables"
METRICS = "metrics.json"
HISTORY = "history.jsonl"


class ArtifactError(Exception):
    """An artifact is missing, incomplete or of another schema version."""


class ArtifactConfig(BaseModel):
    """`config.json`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int = SCHEMA_VERSION
    run: RunConfig
    shape: Shape
    card: Card
    libraries: dict[str, str]


@dataclass(frozen=True)
class Artifact:
    """A trained model as read from disk.

    Attributes:
        path: the folder.
        config: full configuration, sizes, data card, library versions.
        weights: tensors of the model's state by name.
        tables: the method's arrays by name.
        tokenizer: None for features.
        label_ids: public ids by label row.
        label_texts: texts by label row, or None.
        label_counts: training points of each label, int64 (L,).
        samples: held-out queries as a user would send them.
    """

    path: Path
    config: ArtifactConfig
    weights: Mapping[str, Tensor]
    tables: Mapping[str, NDArray[Any]]
    tokenizer: Tokenizer | None
    label_ids: list[str]
    label_texts: list[str] | None
    label_counts: NDArray[np.int64]
    samples: list[Query]

    def restore(self) -> Model:
        """The trained model, in evaluation mode.

        Raises:
            ArtifactError: weights or tables do not fit the configuration.
        """
        model = new_model(self.config.run, self.config.shape)
        try:
            model.attach(self.tables)
            model.load_state_dict(dict(self.weights))
        except (KeyError, RuntimeError, ValueError) as error:
            raise ArtifactError(f"{self.path}: weights and tables do not fit {CONFIG}: {error}") from error
        return model.eval()


def new_model(run: RunConfig, shape: Shape) -> Model:
    """An untrained model of a resolved configuration."""
    return METHODS[run.method.name](run.method, run.encoder, shape)


def write_artifact(
    folder: Path,
    run: RunConfig,
    dataset: Dataset,
    weights: Mapping[str, Tensor],
    tables: Mapping[str, NDArray[Any]],
    metrics: Mapping[str, float],
    history: Path,
) -> None:
    """Write all files into ``folder``, which must exist and be empty; the caller renames it into place."""
    shape = Shape.of(dataset)
    libraries = {name: version(name) for name in LIBRARIES}
    config = ArtifactConfig(run=run, shape=shape, card=dataset.card, libraries=libraries)
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, folder / WEIGHTS)
    (folder / TABLES).mkdir()
    for name, array in tables.items():
        np.save(folder / TABLES / f"{name}.npy", array, allow_pickle=False)
    if dataset.tokenizer is not None:
        dataset.tokenizer.save(str(folder / TOKENIZER))
    texts: Sequence[str | None] = dataset.label_texts or [None] * dataset.label_count
    counts = dataset.label_counts.tolist()
    _write_lines(
        folder / LABELS,
        (
            {"id": id_, "text": text, "count": count}
            for id_, text, count in zip(dataset.label_ids, texts, counts, strict=True)
        ),
    )
    _write_lines(folder / SAMPLES, dataset.samples)
    (folder / METRICS).write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")
    shutil.copyfile(history, folder / HISTORY)
    (folder / CONFIG).write_text(config.model_dump_json(indent=1) + "\n", encoding="utf-8")


def read_artifact(path: Path) -> Artifact:
    """Open an artifact.

    Raises:
        ArtifactError: a file is missing or does not hold what it should.
    """
    try:
        artifact = _read(path)
    except OSError as error:
        missing = error.filename or "a file"
        raise ArtifactError(f"{path}: expected a training artifact, but {missing} cannot be read: {error}") from error
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path}: expected a complete artifact, found a damaged one: {error}") from error
    expected, found = artifact.config.shape.label_count, len(artifact.label_ids)
    if found != expected:
        raise ArtifactError(f"{path / LABELS}: expected {expected} labels, found {found}")
    return artifact


def _read(path: Path) -> Artifact:
    config = _read_config(path / CONFIG)
    labels = [json.loads(line) for line in _lines(path / LABELS)]
    tables = sorted((path / TABLES).glob("*.npy"))
    return Artifact(
        path=path,
        config=config,
        weights=load_file(path / WEIGHTS),
        tables={file.stem: np.load(file, mmap_mode="r", allow_pickle=False) for file in tables},
        tokenizer=_read_tokenizer(path / TOKENIZER) if config.shape.text else None,
        label_ids=[label["id"] for label in labels],
        label_texts=[label["text"] for label in labels] if config.card.has_label_texts else None,
        label_counts=np.array([label["count"] for label in labels], dtype=np.int64),
        samples=[json.loads(line) for line in _lines(path / SAMPLES)],
    )


def _read_tokenizer(path: Path) -> Tokenizer:
    text = path.read_text(encoding="utf-8")
    try:
        return Tokenizer.from_str(text)
    except Exception as error:  # the library raises nothing narrower
        raise ArtifactError(f"{path}: expected a tokenizer, found something else: {error}") from error


def _read_config(path: Path) -> ArtifactConfig:
    text = path.read_text(encoding="utf-8")
    try:
        found = json.loads(text).get("schema_version")
    except (json.JSONDecodeError, AttributeError) as error:
        raise ArtifactError(f"{path}: expected a JSON object, found something else: {error}") from error
    if found != SCHEMA_VERSION:
        raise ArtifactError(f"{path}: expected schema version {SCHEMA_VERSION}, found {found}")
    try:
        return ArtifactConfig.model_validate_json(text)
    except ValidationError as error:
        raise ArtifactError(f"{path}: {error}") from error


def _write_lines(path: Path, records: Iterable[Any]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def _lines(path: Path) -> list[str]:
    # Not splitlines: label texts may hold other characters that it takes for line ends.
    with path.open(encoding="utf-8", newline="\n") as file:
        return list(file)
