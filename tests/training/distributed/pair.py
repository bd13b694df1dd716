"""Processes of one torch process group, without Ray: what they do is what workers of Ray Train do."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import distributed as dist

from training.data.dataset import Dataset
from training.distributed.share import begin, common_data, rows_of_worker, train_share
from training.distributed.workers import Workers
from training.loop import WorkFolder, fit, own_device
from training.methods.base import Model, Shape
from training.recipes import RunConfig

SIZE = 2

# Calls a function in all processes, and gives all results.
Pair = Callable[..., list[Any]]


@contextmanager
def started(meeting: Path, size: int = SIZE, backend: str = "gloo") -> Iterator[Pair]:
    """The processes; they find each other by a file that is not there yet."""
    spawn = get_context("spawn")
    pools = [ProcessPoolExecutor(1, spawn, _join, (rank, meeting, size, backend)) for rank in range(size)]

    def call(function: Callable[..., Any], *arguments: Any) -> list[Any]:
        return [job.result() for job in [pool.submit(function, *arguments) for pool in pools]]

    yield call
    call(dist.destroy_process_group)
    for pool in pools:
        pool.shutdown()


def fit_by(pair: Pair, run: RunConfig, dataset: Dataset, out: Path, *, resume: bool = False) -> list[list[str]]:
    """Train as `training.distributed.one_model.RayWorkers` does: the lines of all workers."""
    said: list[list[str]] = []

    def train(model: Model, run: RunConfig, dataset: Dataset, work: WorkFolder, *_: object) -> None:
        begin(model, work)
        said.extend(pair(share, run, dataset, work))

    fit(run, dataset, out, resume=resume, log=print, train=train)
    return said


def share(run: RunConfig, dataset: Dataset, work: WorkFolder) -> list[str]:
    """A worker's part of it; the first one keeps the folder as every epoch left it."""
    team = Workers()
    own = replace(common_data(dataset), train=rows_of_worker(dataset.train, team.rank, team.size))
    lines: list[str] = []

    def log(line: str) -> None:
        lines.append(line)
        shutil.copytree(work.path, work.path.with_name(f"after{len(lines)}.part"))

    train_share(run, Shape.of(dataset), own, work, own_device(), log)
    return lines


def _join(rank: int, meeting: Path, size: int, backend: str) -> None:
    torch.set_num_threads(1)
    if torch.cuda.is_available():
        torch.cuda.set_device(rank)
    dist.init_process_group(backend, init_method=f"file://{meeting}", rank=rank, world_size=size)
