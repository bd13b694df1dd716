"""Two workers of one torch process group, without Ray, against one process that has everything."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import distributed as dist

from tests.training.synthetic import load, tiny
from training.data.dataset import Dataset
from training.distributed.share import begin, common_data, rows_of_worker, train_share
from training.distributed.workers import Workers
from training.loop import WorkFolder, fit
from training.methods.base import Model, Shape
from training.recipes import RunConfig

WORKERS = 2

Both = Callable[..., list[Any]]


def join_group(rank: int, meeting: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=WORKERS)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    """Calls a function in two processes of a group, and gives both results."""
    meeting = tmp_path_factory.mktemp("group") / "meeting"
    spawn = get_context("spawn")
    pools = [ProcessPoolExecutor(1, spawn, join_group, (rank, meeting)) for rank in range(WORKERS)]

    def call(function: Callable[..., Any], *arguments: Any) -> list[Any]:
        return [job.result() for job in [pool.submit(function, *arguments) for pool in pools]]

    yield call
    call(dist.destroy_process_group)
    for pool in pools:
        pool.shutdown()


def share(run: RunConfig, dataset: Dataset, work: WorkFolder) -> list[str]:
    team = Workers()
    own = replace(common_data(dataset), train=rows_of_worker(dataset.train, team.rank, team.size))
    lines: list[str] = []
    train_share(run, Shape.of(dataset), own, work, torch.device("cpu"), lines.append)
    return lines


def fit_by(both: Both, run: RunConfig, dataset: Dataset, out: Path) -> list[list[str]]:
    said: list[list[str]] = []

    def train(model: Model, run: RunConfig, dataset: Dataset, work: WorkFolder, *_: object) -> None:
        begin(model, work)
        said.extend(both(share, run, dataset, work))

    fit(run, dataset, out, resume=False, log=print, train=train)
    return said


def steady(recipe: str, method: dict[str, object], **training: object) -> RunConfig:
    """A tiny run without dropout, whose masks are another thing on every worker."""
    run = tiny(recipe, epochs=4, **training)
    encoder = run.encoder.model_copy(update={"dropout": 0.0})
    dropout = {"dropout": 0.0} if run.method.name == "unidec" else {}
    return run.model_copy(update={"encoder": encoder, "method": run.method.model_copy(update=dropout | method)})


@pytest.mark.parametrize(
    ("recipe", "method", "training"),
    [
        ("unidec", {}, {}),
        ("unidec", {"classifier_loss": "supcon+bce", "symmetric_classifier": True, "fill": "positives"}, {}),
        ("unidec", {"encoder_weight": 0.0}, {"accumulate": 2}),
        ("depsl", {"encoder_loss": "decoupled_softmax+bce"}, {}),
        ("ova-full", {"negatives": "all"}, {}),
        ("ova-pruned", {"negatives": "all", "weights_kept": 50}, {"batch_size": 16}),
        ("astra", {}, {}),
    ],
)
def test_two_workers_train_the_model_of_one(
    texts: Path, tmp_path: Path, both: Both, recipe: str, method: dict[str, object], training: dict[str, object]
) -> None:
    dataset, run = load(texts, steady(recipe, method, **training))
    fit(run, dataset, tmp_path / "alone", resume=False, log=print)
    first, second = fit_by(both, run, dataset, tmp_path / "out")
    assert [line.split()[1] for line in first] == ["1/4", "2/4", "3/4", "4/4"]
    assert second == []
    alone, found = (load_file(tmp_path / name / "model.safetensors") for name in ("alone", "out"))
    assert list(alone) == list(found)
    torch.testing.assert_close(found, alone, rtol=1e-3, atol=1e-4)
    losses = [history(tmp_path / name, "loss") for name in ("alone", "out")]
    np.testing.assert_allclose(*losses, rtol=1e-4)


def history(out: Path, name: str) -> list[float]:
    return [json.loads(line)[name] for line in (out / "history.jsonl").read_text().splitlines()]
