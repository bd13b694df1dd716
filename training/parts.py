"""MACH's repetitions trained apart: R jobs that share nothing but data, then one model of them.

A network that has its own encoder needs nothing of the others, as in the paper: each is a run of one repetition, with
its own seed, order, unfinished state and best epoch, and ends as an artifact of its own. Nothing of a job depends on
where or beside what it ran, so one process, several, tasks of Ray (`training.distributed`), or machines of their own
(``fit --part 3/16``, then ``join``) give the same model. To the bit they do with one thread each, since several threads
group their sums otherwise; processes and tasks of `fit` have one, and so should a part that is trained alone.

Which epoch is kept is each job's own decision, by its repetition's measure of the validation rows: a decision for all
together would need all of them to wait for each other after every epoch.
"""

from __future__ import annotations

import json
import multiprocessing
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from training.artifact import HISTORY, Artifact, new_model, read_artifact
from training.data.dataset import Dataset
from training.loop import RunError, check_target, open_work, validation_measures, write_finished
from training.loop import fit as fit_one
from training.methods import METHODS
from training.methods.base import Shape, Tables, settled
from training.methods.mach import TABLE, MachConfig
from training.recipes import Part, RunConfig

Log = Callable[[str], None]


def part_count(run: RunConfig) -> int:
    """The jobs that a resolved run is made of: 1 unless its repetitions have networks of their own."""
    method = run.method
    apart = isinstance(method, MachConfig) and method.networks == "independent"
    return settled(method.repetitions) if apart and isinstance(method, MachConfig) else 1


def part_of(run: RunConfig, repetition: int) -> RunConfig:
    """The run of one repetition; its seed decides its buckets too: those of that row of the whole run's table.

    Args:
        run: the whole run, resolved.
        repetition: counted from 0.
    """
    method = run.method.model_copy(update={"repetitions": 1, "networks": "shared"})
    training = run.training.model_copy(update={"seed": run.training.seed + repetition})
    part = Part(repetition=repetition, of=part_count(run))
    return run.model_copy(update={"method": method, "training": training, "part": part})


def whole_of(run: RunConfig) -> RunConfig:
    """The whole run that a part belongs to.

    Raises:
        RunError: it is no part.
    """
    if run.part is None:
        raise RunError("expected a part, as `fit --part` writes it, found a whole run")
    method = run.method.model_copy(update={"repetitions": run.part.of, "networks": "independent"})
    training = run.training.model_copy(update={"seed": run.training.seed - run.part.repetition})
    return run.model_copy(update={"method": method, "training": training, "part": None})


class PartLost(Exception):
    """A part that began well ended without a result."""


# Trains parts, each from its checkpoint where there is one. It is given the folders of the artifacts to be made, by
# repetition, and what takes the line of each part when it is finished (`kept_line`).
Train = Callable[[Mapping[int, Path], Log], None]


class Trainer(Protocol):
    """Where and beside what the parts of a run are trained; its text says so after "N of M repetitions are done"."""

    def ready(self, run: RunConfig, dataset: Dataset) -> AbstractContextManager[Train]:
        """Be ready to train parts; refuse, before any work, what cannot be done.

        Args:
            run: the whole run, resolved.
            dataset: what to train on, augmented already.
        """


@dataclass(frozen=True)
class Processes:
    """Trains parts in processes of this machine, each with one thread and a copy of the rows.

    Attributes:
        count: parts at a time.
    """

    count: int

    def __str__(self) -> str:
        return f"{self.count} at a time"

    @contextmanager
    def ready(self, run: RunConfig, dataset: Dataset) -> Iterator[Train]:
        """As `Trainer` asks for."""
        yield partial(self._train, run, dataset)

    def _train(self, run: RunConfig, dataset: Dataset, folders: Mapping[int, Path], log: Log) -> None:
        workers = max(1, min(self.count, len(folders)))
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, spawn, _receive, (run, dataset)) as pool:
            jobs = {pool.submit(_fit_given, repetition, folder): repetition for repetition, folder in folders.items()}
            try:
                for job in as_completed(jobs):
                    log(kept_line(run, jobs[job], job.result()))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise


ONE_PROCESS = Processes(1)


def fit(
    run: RunConfig, dataset: Dataset, out: Path, *, resume: bool, log: Log, trainer: Trainer = ONE_PROCESS
) -> dict[str, float]:
    """Train a run, in parts where it is made of several, and write its artifact to ``out``.

    The parts are trained as jobs of their own in ``OUT.part/parts`` and joined when all are done.

    Args:
        run: resolved configuration.
        dataset: what to train on, augmented already.
        out: folder to be made.
        resume: continue what is unfinished.
        log: takes one line of text per epoch, or per finished part.
        trainer: of the parts.

    Returns:
        The validation measures of the model.

    Raises:
        RunError: as `training.loop.fit`; or the trainer cannot do it.
        Diverged: a loss is no number any more.
        PartLost: a part ended without a result.
    """
    count = part_count(run)
    if count == 1:
        return fit_one(run, dataset, out, resume=resume, log=log)
    check_target(out, resume=resume)
    METHODS[run.method.name].check_data(run.method, dataset)
    with trainer.ready(run, dataset) as train:
        work = open_work(out, run, dataset)
        folders = [work.path / "parts" / f"{repetition:03d}" for repetition in range(count)]
        missing = {repetition: folder for repetition, folder in enumerate(folders) if not folder.exists()}
        log(f"{count - len(missing)} of {count} repetitions are done; {trainer}")
        train(missing, log)
    shutil.rmtree(work.artifact, ignore_errors=True)
    measures = join(folders, dataset, work.artifact, log=log)
    work.artifact.rename(out)
    shutil.rmtree(work.path)
    return measures


def join(folders: Sequence[Path], dataset: Dataset, out: Path, *, log: Log) -> dict[str, float]:
    """Make one artifact of the parts of a run.

    Args:
        folders: artifacts of all parts, in any order.
        dataset: what they were trained on.
        out: folder to be made.
        log: takes lines of text on what follows the joined model's weights.

    Returns:
        Validation measures of the joined model.

    Raises:
        ArtifactError: a folder is no artifact.
        RunError: they are not the parts of one run of this data, each once.
    """
    parts = sorted((read_artifact(folder) for folder in folders), key=_repetition)
    run = _common_run(parts, dataset)
    weights: dict[str, Tensor] = {}
    for repetition, part in enumerate(parts):
        for name, tensor in part.weights.items():
            kind, _, rest = name.partition(".0.")
            if name != TABLE:
                weights[f"{kind}.{repetition}.{rest}"] = tensor
    tables: Tables = {"buckets": np.concatenate([part.tables["buckets"] for part in parts])}
    if any(TABLE in part.weights for part in parts):
        weights[TABLE] = torch.from_numpy(tables["buckets"].astype(np.int64))
    model = new_model(run, Shape.of(dataset))
    model.attach(tables)
    model.load_state_dict(weights)
    measures = validation_measures(model, dataset)
    out.mkdir()
    history = out.with_name(out.name + ".history")
    history.write_text("".join(map(_history, parts)), encoding="utf-8")
    measures = write_finished(out, model, run, dataset, tables, measures, history, log)
    history.unlink()
    return measures


def fit_part(run: RunConfig, dataset: Dataset, repetition: int, folder: Path, log: Log) -> dict[str, float]:
    """Train one part of a run, from its checkpoint where there is one.

    Args:
        run: the whole run, resolved.
        dataset: what to train on, augmented already.
        repetition: counted from 0.
        folder: of its artifact; in that of all parts, which is made where it is missing.
        log: takes one line of text per epoch, which names the repetition.

    Returns:
        The validation measures of the epoch that was kept.
    """
    folder.parent.mkdir(exist_ok=True)
    name = part_name(run, repetition)
    return fit_one(part_of(run, repetition), dataset, folder, resume=True, log=lambda line: log(f"{name}  {line}"))


def kept_line(run: RunConfig, repetition: int, kept: Mapping[str, float]) -> str:
    """What is said of a finished part."""
    return f"{part_name(run, repetition)}  kept epoch {kept['epoch']}  validation P@1 {kept['P@1']:5.2f}"


def part_name(run: RunConfig, repetition: int) -> str:
    """What a part is called in lines of text."""
    return f"repetition {repetition + 1}/{part_count(run)}"


# What a worker process was given, once for all its jobs.
_given: list[tuple[RunConfig, Dataset]] = []


def _receive(run: RunConfig, dataset: Dataset) -> None:
    """Set a worker process up."""
    _given.append((run, dataset))
    torch.set_num_threads(1)


def _fit_given(repetition: int, folder: Path) -> dict[str, float]:
    """A worker's job."""
    return fit_part(*_given[0], repetition, folder, _say)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _common_run(parts: Sequence[Artifact], dataset: Dataset) -> RunConfig:
    """The run that all parts belong to."""
    if not parts:
        raise RunError("expected the parts of a run, found none")
    run = whole_of(parts[0].config.run)
    found = [_repetition(part) for part in parts]
    if found != list(range(part_count(run))):
        numbers = ", ".join(str(repetition + 1) for repetition in found)
        raise RunError(f"expected the parts 1 to {part_count(run)}, each once, found {numbers}")
    for part in parts:
        if whole_of(part.config.run) != run:
            raise RunError(f"{part.path}: expected a part of the same run as {parts[0].path}, found another's")
        if part.config.shape != Shape.of(dataset) or part.label_ids != dataset.label_ids:
            raise RunError(f"{part.path}: expected a part trained on {dataset.card.name}, found other data")
    return run


def _repetition(part: Artifact) -> int:
    """Which part an artifact is, counted from 0; -1 if it is none."""
    return part.config.run.part.repetition if part.config.run.part is not None else -1


def _history(part: Artifact) -> str:
    """The part's history, its repetition in each line."""
    lines = (part.path / HISTORY).read_text(encoding="utf-8").splitlines()
    return "".join(json.dumps({"repetition": _repetition(part) + 1} | json.loads(line)) + "\n" for line in lines)
