"""The artifact: what training leaves on disk and the exporter reads.

A folder of `config.json`, `model.safetensors`, `tokenizer.json` (texts only), `labels.jsonl`, `samples.jsonl`,
`tables/*.npy`, `calibration.json`, `metrics.json` and `history.jsonl`. Names inside are short and stable ("mach");
nothing holds a class path or a pickle.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor

from training.calibration import Calibration
from training.data.card import Card
from training.data.dataset import Dataset, Query
from training.data.sparse import narrow_csr
from training.methods import METHODS
from training.methods.base import Model, Shape
from training.recipes import RunConfig
from training.reranker import Mixture, Reranker
from training.team import ALONE, Team
from training.terms import Terms
from training.weighing import Weighing

_T = TypeVar("_T")
_M = TypeVar("_M", bound=BaseModel)

SCHEMA_VERSION = 1
LIBRARIES = ("xmcserve", "torch", "tokenizers", "numpy", "scipy")

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
TOKENIZER = "tokenizer.json"
LABELS = "labels.jsonl"
SAMPLES = "samples.jsonl"
TABLES = "tables"
CALIBRATION = "calibration.json"
RERANKER = "reranker"
MIXTURE = "mixture.json"
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
    counted_rows: int
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
        calibration: maps from raw scores to probabilities; None in artifacts that were written without.
        reranker: orders the model's answers anew; None where the run asks for none.
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
    calibration: Calibration | None
    reranker: Reranker | None

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


def new_model(run: RunConfig, shape: Shape, team: Team = ALONE) -> Model:
    """An untrained model of a resolved configuration, or what one worker of a team has of it."""
    method = METHODS[run.method.name]
    if team is ALONE:
        return method(run.method, run.encoder, shape)
    return method(run.method, run.encoder, shape, team)


def write_artifact(
    folder: Path,
    run: RunConfig,
    dataset: Dataset,
    weights: Mapping[str, Tensor],
    tables: Mapping[str, NDArray[Any]],
    calibration: Calibration,
    reranker: Reranker | None,
    metrics: Mapping[str, float],
    history: Path,
) -> None:
    """Write all files into ``folder``, which must exist and be empty; the caller renames it into place."""
    shape = Shape.of(dataset)
    libraries = {name: version(name) for name in LIBRARIES}
    config = ArtifactConfig(
        run=run, shape=shape, counted_rows=dataset.counted_rows, card=dataset.card, libraries=libraries
    )
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
    (folder / CALIBRATION).write_text(calibration.model_dump_json(indent=1) + "\n", encoding="utf-8")
    if reranker is not None:
        _write_reranker(folder / RERANKER, reranker)
    (folder / METRICS).write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")
    shutil.copyfile(history, folder / HISTORY)
    (folder / CONFIG).write_text(config.model_dump_json(indent=1) + "\n", encoding="utf-8")


def read_artifact(path: Path) -> Artifact:
    """Open an artifact.

    Raises:
        ArtifactError: a file is missing or does not hold what it should.
    """
    if not path.is_dir():
        raise ArtifactError(f"{path}: expected a training artifact, found {'a file' if path.exists() else 'nothing'}")
    config = _read(path / CONFIG, _read_config)
    labels = _read(path / LABELS, _read_labels)
    artifact = Artifact(
        path=path,
        config=config,
        weights=_read(path / WEIGHTS, load_file),
        tables={file.stem: _read(file, _read_table) for file in sorted((path / TABLES).glob("*.npy"))},
        tokenizer=_read(path / TOKENIZER, _read_tokenizer) if config.shape.text else None,
        label_ids=[id_ for id_, _, _ in labels],
        label_texts=[text for _, text, _ in labels] if config.card.has_label_texts else None,
        label_counts=np.array([count for _, _, count in labels], dtype=np.int64),
        samples=_read(path / SAMPLES, _read_lines),
        calibration=_read(path / CALIBRATION, _read_calibration) if (path / CALIBRATION).exists() else None,
        reranker=_read_reranker(path / RERANKER) if (path / RERANKER).exists() else None,
    )
    if len(artifact.label_ids) != config.shape.label_count:
        raise ArtifactError(
            f"{path / LABELS}: expected {config.shape.label_count} labels, found {len(artifact.label_ids)}"
        )
    return artifact


def _read(file: Path, read: Callable[[Path], _T]) -> _T:
    """What a file holds; whatever its library says of a missing or damaged one becomes one sentence."""
    if not file.is_file():
        raise ArtifactError(f"{file}: expected this file of a training artifact, found nothing")
    try:
        return read(file)
    except ArtifactError:
        raise
    except Exception as error:  # tokenizers and safetensors raise no narrower class
        raise ArtifactError(f"{file} cannot be read: {type(error).__name__}: {error}") from error


def _read_config(file: Path) -> ArtifactConfig:
    text = file.read_text(encoding="utf-8")
    try:
        found = json.loads(text).get("schema_version")
    except (json.JSONDecodeError, AttributeError) as error:
        raise ArtifactError(f"{file}: expected a JSON object, found something else: {error}") from error
    if found != SCHEMA_VERSION:
        raise ArtifactError(f"{file}: expected schema version {SCHEMA_VERSION}, found {found}")
    return _validated(ArtifactConfig, file, text)


def _read_calibration(file: Path) -> Calibration:
    return _validated(Calibration, file, file.read_text(encoding="utf-8"))


def _write_reranker(folder: Path, reranker: Reranker) -> None:
    """`mixture.json` and the classifiers' arrays."""
    folder.mkdir()
    weights = reranker.weights
    arrays: dict[str, NDArray[Any]] = {
        "offsets": weights.indptr.astype(np.int64),
        "labels": weights.indices.astype(np.int32),
    }
    arrays |= {"values": weights.data, "shape": np.array(weights.shape, dtype=np.int64)}
    terms, idf = reranker.weighing.terms, reranker.weighing.idf
    if idf is not None:
        arrays["idf"] = idf
    if terms is not None:
        arrays |= {"pairs": terms.pairs, "piece_offsets": terms.piece_offsets, "pieces": terms.pieces}
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array, allow_pickle=False)
    (folder / MIXTURE).write_text(reranker.mixture.model_dump_json(indent=1) + "\n", encoding="utf-8")


def _read_reranker(folder: Path) -> Reranker:
    mixture = _read(folder / MIXTURE, _read_mixture)
    names = ["offsets", "labels", "values", "shape"]
    offsets, labels, values, shape = (_read(folder / f"{name}.npy", _read_table) for name in names)
    weights = narrow_csr(values, labels, offsets, tuple(shape.tolist()))
    terms = idf = None
    if (folder / "idf.npy").exists():
        idf = _read(folder / "idf.npy", _read_table)
    if (folder / "pairs.npy").exists():
        names = ["piece_offsets", "pieces", "pairs"]
        terms = Terms(*(_read(folder / f"{name}.npy", _read_table) for name in names))
    return Reranker(weights, Weighing(terms, idf), mixture)


def _read_mixture(file: Path) -> Mixture:
    return _validated(Mixture, file, file.read_text(encoding="utf-8"))


def _validated(model: type[_M], file: Path, text: str) -> _M:
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        problems = (f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        raise ArtifactError(f"{file}: {'; '.join(problems)}") from error


def _read_labels(file: Path) -> list[tuple[str, str, int]]:
    return [(label["id"], label["text"], label["count"]) for label in _read_lines(file)]


def _read_table(file: Path) -> NDArray[Any]:
    table: NDArray[Any] = np.load(file, mmap_mode="r", allow_pickle=False)
    return table


def _read_tokenizer(file: Path) -> Tokenizer:
    return Tokenizer.from_file(str(file))


def _write_lines(path: Path, records: Iterable[Any]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def _read_lines(path: Path) -> list[Any]:
    # Not splitlines: label texts may hold other characters that it takes for line ends.
    with path.open(encoding="utf-8", newline="\n") as file:
        return [json.loads(line) for line in file]
