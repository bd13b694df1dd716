"""One model trained by several workers, as Ray Train starts them; what they do is `training.distributed.share`.

This process reads the data, makes the first weights, gives every worker its rows and, when the last epoch is done,
makes the artifact of the best one, as `fit` does after epochs of its own. A worker or a node that dies ends the work of
all: Ray Train starts them again, and they go on after the last checkpoint, in ``OUT.part``.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from pathlib import Path
from queue import Empty
from threading import Thread
from typing import Any
from uuid import uuid4

import ray
import ray.train
import torch
from ray.train.torch import TorchConfig, TorchTrainer, get_device
from ray.util.queue import Queue

from training.data.batches import Rows
from training.data.dataset import Dataset
from training.distributed.cluster import CONNECTION_BYTES, RETRIES, check_memory, connected, line_queue, total
from training.distributed.share import begin, common_data, rows_of_worker, train_share
from training.distributed.workers import Workers
from training.loop import Diverged, Log, RunError, WorkersLost, WorkFolder, fit
from training.methods.base import Model, Shape
from training.planning import Peak, expected_worker_peak
from training.recipes import RunConfig

POLL_SECONDS = 0.5
# How long workers wait for one that does something alone, such as to cluster all rows; Ray ends the wait for a dead
# one.
PATIENCE_SECONDS = 6 * 3600


class RayWorkers:
    """Trains one model by several workers, each on a GPU if the cluster has so many, else each on a processor."""

    def __init__(self, address: str, workers: int) -> None:
        self._address, self._workers = address, workers

    def worker_peak(self, run: RunConfig, dataset: Dataset) -> Peak:
        """What the first worker holds at its highest; no other one holds more.

        Raises:
            RunError: some worker would have no training row or no label.
        """
        most = min(len(dataset.train), dataset.label_count)
        if self._workers > most:
            raise RunError(
                f"--workers: expected at most {most:,}, so that each has a training row and a label, "
                f"found {self._workers}"
            )
        peak = expected_worker_peak(run, dataset, self._workers)
        return Peak(peak.moment, peak.parts | {"Ray's connection": CONNECTION_BYTES})

    def fit(self, run: RunConfig, dataset: Dataset, out: Path, *, resume: bool, log: Log) -> dict[str, float]:
        """As `training.loop.fit`; an unfinished run that is continued may have had other workers.

        Raises:
            RunError: as there; or there is no such cluster, or it is too small.
            Diverged: the loss is no number any more.
            WorkersLost: workers died too often.
        """
        memory = self.worker_peak(run, dataset).bytes
        with connected(self._address):
            check_memory(memory, "a worker")
            if total("CPU") < self._workers:
                raise RunError(
                    f"--workers: expected at most the {total('CPU')} processors of the cluster, found {self._workers}"
                )
            on_gpus = total("GPU") >= self._workers
            where = "GPU" if on_gpus else "processor"
            log(f"{self._workers} workers by Ray ({self._address}), each on a {where}")
            train = partial(_train, self._workers, memory, on_gpus)
            return fit(run, dataset, out, resume=resume, log=log, train=train)


def _train(
    workers: int, memory: int, on_gpus: bool, model: Model, run: RunConfig, dataset: Dataset, work: WorkFolder, log: Log
) -> None:
    """As `training.loop.Train`."""
    begin(model, work)
    lines = line_queue()
    given = {
        "run": run,
        "shape": Shape.of(dataset),
        "common": ray.put(common_data(dataset)),
        "rows": [ray.put(rows_of_worker(dataset.train, rank, workers)) for rank in range(workers)],
        "work": work.path.absolute(),
        "lines": lines,
    }
    # Else a worker would look for a pretrained model's folder in a folder of Ray's.
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
    trainer = TorchTrainer(
        _work,
        train_loop_config=given,
        torch_config=TorchConfig(backend="cpu:gloo,cuda:nccl" if on_gpus else "gloo", timeout_s=PATIENCE_SECONDS),
        scaling_config=ray.train.ScalingConfig(
            num_workers=workers,
            use_gpu=on_gpus,
            resources_per_worker={"CPU": 1, "memory": memory} | ({"GPU": 1} if on_gpus else {}),
        ),
        run_config=ray.train.RunConfig(
            name=uuid4().hex,  # Ray would take one that it knows for the same run
            storage_path=str(work.path.absolute() / "ray"),
            failure_config=ray.train.FailureConfig(max_failures=RETRIES),
        ),
    )
    finished = _in_background(trainer.fit)
    while not finished.done():
        _say(lines, log, POLL_SECONDS)
    _say(lines, log, 0)
    try:
        finished.result()
    except ray.train.TrainingFailedError as error:
        raise WorkersLost(f"the workers could not finish; fit --resume continues the run: {error}") from error


def _work(given: Mapping[str, Any]) -> None:
    """What a worker does."""
    torch.set_num_threads(1)
    team, lines, work = Workers(), given["lines"], WorkFolder(given["work"])
    missing = "" if work.checkpoint.exists() else socket.gethostname()
    blind = team.sum(torch.tensor(int(bool(missing))))
    if missing:
        found = f"found none on {missing}; --out must be on storage that all nodes see"
        lines.put(RunError(f"{work.path}: expected the run's folder, {found}"))
    if int(blind):
        return
    rows: Rows = ray.get(given["rows"][team.rank])
    dataset = replace(ray.get(given["common"]), train=rows)
    try:
        train_share(given["run"], given["shape"], dataset, work, get_device(), lines.put)
    except Diverged as error:  # to try again would be of no use
        if team.rank == 0:
            lines.put(error)


def _say(lines: Queue, log: Log, patience: float) -> None:
    """Pass lines on, for as long as there are any; raise what a worker raised."""
    while True:
        try:
            line = lines.get(timeout=patience) if patience else lines.get_nowait()
        except Empty:
            return
        if isinstance(line, Exception):
            raise line
        log(line)


def _in_background(do: Callable[[], object]) -> Future[object]:
    """Do something in a thread that does not keep the process alive: an interrupt ends the run at once."""
    future: Future[object] = Future()

    def go() -> None:
        try:
            future.set_result(do())
        except BaseException as error:
            future.set_exception(error)

    Thread(target=go, daemon=True).start()
    return future
