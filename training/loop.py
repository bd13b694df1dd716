"""The one training loop: step, log, evaluate, keep the best, resume.

Work in progress lives beside the target, in ``OUT.part``: the run's configuration, the checkpoint of the last finished
epoch, the best weights so far and the history. The artifact is written there too and renamed to ``OUT`` when it is
complete.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from tqdm import tqdm

from training import memory
from training.artifact import new_model, write_artifact
from training.checkpoint import (
    Division,
    Progress,
    load_checkpoint,
    save_checkpoint,
    save_tensors,
    temporary_beside,
    whole_weights,
)
from training.data.dataset import Dataset
from training.evaluation import calibrated, evaluate, reranker_of
from training.methods import METHODS
from training.methods.base import Model, Shape, Tables, settled
from training.recipes import RunConfig, TrainingConfig
from training.reranker import Reranker
from training.stepping import Stepper

VALIDATION_KS = (1, 3, 5)


class RunError(Exception):
    """A run cannot start or continue as asked."""


class Diverged(Exception):
    """The loss is no number any more."""


class WorkersLost(Exception):
    """Workers that began well ended before their last epoch."""


@dataclass(frozen=True)
class WorkFolder:
    """Files of an unfinished run."""

    path: Path

    @property
    def config(self) -> Path:
        """The configuration the run was started with."""
        return self.path / "run.json"

    @property
    def checkpoint(self) -> Path:
        """State after the last finished epoch."""
        return self.path / "checkpoint.safetensors"

    @property
    def best(self) -> Path:
        """Weights of the best epoch."""
        return self.path / "best.safetensors"

    @property
    def history(self) -> Path:
        """One line per finished epoch."""
        return self.path / "history.jsonl"

    @property
    def artifact(self) -> Path:
        """The artifact while it is written."""
        return self.path / "artifact"


def check_target(out: Path, *, resume: bool) -> None:
    """Refuse, before any work, what would overwrite a user's files.

    Raises:
        RunError: ``out`` exists, or an unfinished run stands beside it and ``resume`` was not asked for.
    """
    if out.exists():
        raise RunError(f"{out} exists already; give another --out, or remove it")
    part = work_folder(out).path
    if part.exists() and not resume:
        raise RunError(f"{part} holds an unfinished run; continue it with --resume, or remove it")


def check_device(config: TrainingConfig) -> None:
    """Refuse, before any work, what this machine has no device for.

    Raises:
        RunError: fp16 was asked for, and there is no CUDA device.
    """
    if config.precision == "fp16" and not torch.cuda.is_available():
        raise RunError("training.precision fp16: expected a CUDA device, found none; bf16 and fp32 run on the CPU")


Log = Callable[[str], None]
# Trains a new model from its work folder's checkpoint, where there is one, to the run's last epoch, and leaves the best
# weights there.
Train = Callable[[Model, RunConfig, Dataset, WorkFolder, Log], None]


def own_device() -> torch.device:
    """The device that this process trains on."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def fit(
    run: RunConfig,
    dataset: Dataset,
    out: Path,
    *,
    resume: bool,
    log: Log,
    tables: Tables | None = None,
    train: Train | None = None,
) -> dict[str, float]:
    """Train, and write the artifact of the best epoch to ``out``.

    Args:
        run: resolved configuration.
        dataset: what to train on, augmented already.
        out: folder to be made; see `check_target`.
        resume: continue an unfinished run of the same configuration, if there is one.
        log: takes one line of text per epoch.
        tables: the method's, where they are made already.
        train: goes through the epochs elsewhere, so that this process needs no other device than its processor; None:
            they are gone through here (`train_epochs`).

    Returns:
        The validation measures of the epoch that was kept.

    Raises:
        RunError: the target exists, the unfinished run has another configuration, or a device is missing.
        EncoderError: a pretrained model cannot be had.
    """
    check_target(out, resume=resume)
    check_device(run.training)
    device = own_device() if train is None else torch.device("cpu")
    torch.manual_seed(run.training.seed)
    model = new_model(run, Shape.of(dataset)).to(device)
    if tables is None:
        tables = type(model).make_tables(run.method, dataset, run.training.seed)
    model.attach(tables)
    model.initialise(dataset)
    memory.return_freed()  # the workspace of tables
    # Not before the tables: data that the method refuses must leave no unfinished run behind.
    work = open_work(out, run, dataset)
    (train or train_epochs)(model, run, dataset, work, log)
    model.zero_grad(set_to_none=True)
    memory.return_freed()  # gradients and optimisers
    return _finish(model, run, dataset, tables, work, out, log)


def train_epochs(model: Model, run: RunConfig, dataset: Dataset, work: WorkFolder, log: Log) -> None:
    """As `Train`; a worker of a team does its share, and the first one writes and says what comes of it.

    Args:
        model: with the weights that the run begins with, or a worker's own of them.
        run: resolved configuration.
        dataset: what to train on; of the training rows, a worker has its own.
        work: the run's.
        log: takes one line of text per epoch.

    Raises:
        Diverged: the loss is no number any more.
    """
    config, team, device = run.training, model.team, next(model.parameters()).device
    first = team.rank == 0
    stepper = Stepper(model, config, device)
    division = Division(team, model.label_rows())
    progress = Progress()
    if work.checkpoint.exists():
        progress, renewed = load_checkpoint(work.checkpoint, model, stepper.optimisers, division)
        model.take_renewed(renewed)
        stepper.scaler.load_state_dict(progress.scaler)
        if first and progress.epoch:
            log(f"resuming after epoch {progress.epoch} of {config.epochs}")
    if first:
        _keep_lines(work.history, progress.epoch)
    epochs = settled(config.epochs)
    for epoch in range(progress.epoch + 1, epochs + 1):
        started = time.perf_counter()
        loss = _epoch(model, stepper, dataset, config, epoch, device)
        trained = time.perf_counter()
        measures = validation_measures(model, dataset)
        value = measures[config.selection]
        progress.epoch, progress.scaler = epoch, stepper.scaler.state_dict()
        if value > progress.best:
            progress.best, progress.best_epoch = value, epoch
            weights = whole_weights(model, division)
            if first:
                save_tensors(work.best, weights)
        line = {
            "epoch": epoch,
            "loss": loss,
            "train_seconds": trained - started,
            "evaluate_seconds": time.perf_counter() - trained,
        }
        if first:
            with work.history.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line | measures) + "\n")
        save_checkpoint(work.checkpoint, model, stepper.optimisers, progress, model.renewed(), division)
        if first:
            log(
                f"epoch {epoch:>3}/{epochs}  loss {loss:9.4f}  validation P@1 {measures['P@1']:5.2f}  "
                f"{trained - started:6.1f} s"
            )


def validation_measures(model: Model, dataset: Dataset, reranker: Reranker | None = None) -> dict[str, float]:
    """Measures of the held-out rows at `VALIDATION_KS`."""
    counts = dataset.label_counts, dataset.counted_rows
    return evaluate(model, dataset.validation, *counts, dataset.card, VALIDATION_KS, reranker=reranker)


def _epoch(
    model: Model,
    stepper: Stepper,
    dataset: Dataset,
    config: TrainingConfig,
    epoch: int,
    device: torch.device,
) -> float:
    """One pass over the training rows: the mean loss per step."""
    # All randomness of an epoch comes from (seed, epoch): a resumed run repeats it.
    team = model.team
    team.seed(config.seed * 1_000_003 + epoch)
    train_rows = int(team.sum(torch.tensor(len(dataset.train))))
    steps = steps_per_epoch(train_rows, config)
    model.begin_epoch(epoch, dataset)
    model.train()
    batch_size = settled(config.batch_size)
    order = model.order(train_rows, batch_size, np.random.default_rng((config.seed, epoch)))
    multiplier = rate_curve(config, steps)
    total = 0.0
    starts = range(0, len(order), rows_per_step(config))
    bar = tqdm(starts, desc=f"epoch {epoch}", leave=False, disable=not sys.stderr.isatty())
    for step, start in enumerate(bar, start=(epoch - 1) * steps):
        rows = order[start : start + rows_per_step(config)]
        batches = team.batches(dataset.train, rows, batch_size, device)
        total += stepper.step(batches, len(rows), multiplier(step))
    mean = float(team.sum(torch.tensor(total, dtype=torch.float64))) / steps
    if not math.isfinite(mean):
        raise Diverged(
            f"the loss of epoch {epoch} is {mean}: lower training.learning_rate (now {config.learning_rate})"
        )
    return mean


def rows_per_step(config: TrainingConfig) -> int:
    """Training rows of one optimiser step."""
    return settled(config.batch_size) * config.accumulate


def steps_per_epoch(rows: int, config: TrainingConfig) -> int:
    """Optimiser steps of one pass over the training rows."""
    return -(-rows // rows_per_step(config))


def rate_curve(config: TrainingConfig, steps: int) -> Callable[[int], float]:
    """Multiplier of the learning rate at a step: linear warm-up, then the schedule's decay to 0."""
    total = settled(config.epochs) * steps
    warmup = round(total * config.warmup)

    def multiplier(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        left = max(0.0, (total - step) / max(1, total - warmup))
        return {"constant": 1.0, "linear": left, "cosine": (1 - math.cos(math.pi * left)) / 2}[config.schedule]

    return multiplier


def work_folder(out: Path) -> WorkFolder:
    """Where a run that is to become ``out`` keeps its files until then."""
    return WorkFolder(out.with_name(out.name + ".part"))


def open_work(out: Path, run: RunConfig, dataset: Dataset) -> WorkFolder:
    """Begin a run's work folder, or open the one that is there.

    Raises:
        RunError: it was begun with another configuration or other data.
    """
    work = work_folder(out)
    started = {"run": run.model_dump(mode="json"), "data": _digest(dataset)}
    if work.config.exists():
        found = json.loads(work.config.read_text(encoding="utf-8"))
        for part, name in (("run", "another configuration"), ("data", "other data")):
            if found[part] != started[part]:
                raise RunError(
                    f"{work.path} was started with {name} (see {work.config.name} in it); remove it to start anew"
                )
    else:
        work.path.mkdir(parents=True, exist_ok=True)
        partial = temporary_beside(work.config)
        partial.write_text(json.dumps(started, indent=1), encoding="utf-8")
        partial.replace(work.config)
    return work


def _digest(dataset: Dataset) -> str:
    """Tells whether two data sets give every step the same rows."""
    digest = hashlib.sha256()
    for matrix in (dataset.train.inputs, dataset.train.targets, dataset.validation.inputs, dataset.validation.targets):
        for array in (matrix.indptr, matrix.indices, matrix.data):
            digest.update(array.tobytes())
    return digest.hexdigest()


def _keep_lines(history: Path, count: int) -> None:
    """Drop lines of epochs that a killed run logged but did not checkpoint."""
    lines = history.read_text(encoding="utf-8").splitlines(keepends=True) if history.exists() else []
    history.write_text("".join(lines[:count]), encoding="utf-8")


def write_finished(
    folder: Path,
    model: Model,
    run: RunConfig,
    dataset: Dataset,
    tables: Tables,
    measures: Mapping[str, float],
    history: Path,
    log: Log,
) -> dict[str, float]:
    """Fit what follows a trained model, and write the artifact into ``folder``, which must be empty.

    Args:
        folder: of the artifact.
        model: with the weights to be kept.
        run: resolved configuration.
        dataset: what it was trained on.
        tables: the method's.
        measures: of the model on the validation rows.
        history: file with a line for each epoch.
        log: takes one line of text for each round of a re-ranker.

    Returns:
        The measures, those of re-ranked answers where there is a re-ranker.
    """
    seed, fitted = run.training.seed, None
    if run.word_classifiers is not None:
        fitted = reranker_of(model, dataset, run.word_classifiers, run.texts.piece_count, seed, log)
        measures = {**measures, **validation_measures(model, dataset, fitted.chosen)}
    calibration = calibrated(model, dataset.validation, seed, None if fitted is None else fitted.chosen)
    reranker = None if fitted is None else fitted.final
    write_artifact(folder, run, dataset, model.state_dict(), tables, calibration, reranker, measures, history)
    return dict(measures)


def _finish(
    model: Model,
    run: RunConfig,
    dataset: Dataset,
    tables: Tables,
    work: WorkFolder,
    out: Path,
    log: Log,
) -> dict[str, float]:
    lines = [json.loads(line) for line in work.history.read_text(encoding="utf-8").splitlines()]
    kept: dict[str, float] = max(lines, key=lambda line: line[run.training.selection])
    shutil.rmtree(work.artifact, ignore_errors=True)
    work.artifact.mkdir()
    weights = load_file(work.best)
    tables = METHODS[run.method.name].kept_tables(tables, weights)
    model.load_state_dict(weights)
    del weights  # as large as the model
    kept = write_finished(work.artifact, model, run, dataset, tables, kept, work.history, log)
    work.artifact.rename(out)
    shutil.rmtree(work.path)
    return kept
