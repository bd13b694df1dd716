"""MACH's independent repetitions as tasks of Ray, each of which goes on elsewhere when its node dies.

A task is what `training.parts` calls a part: a run of its own, with a checkpoint after every epoch in ``OUT.part``. Ray
places tasks by processors and memory, sends the rows to each node once, and starts a task again whose node or process
died; it then continues after its last checkpoint. So the folder must be on storage that all nodes see.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import ray
import torch
from ray import ObjectRef
from ray.util.queue import Queue

from training.artifact import METRICS
from training.data.dataset import Dataset
from training.distributed.cluster import CONNECTION_BYTES, RETRIES, check_memory, connected, line_queue, result_of
from training.loop import RunError
from training.parts import Log, Train, fit, fit_part, kept_line, part_name, part_of
from training.planning import Peak, expected_peak
from training.recipes import RunConfig

POLL_SECONDS = 0.5

# A task's result-to-be: the measures of the epoch that was kept.
Task = ObjectRef[dict[str, float]]


class RayTasks:
    """Trains each repetition as a task with one processor and the memory that it is expected to need."""

    def __init__(self, address: str) -> None:
        self._address = address

    def __str__(self) -> str:
        return f"by Ray ({self._address})"

    def worker_peak(self, run: RunConfig, dataset: Dataset) -> Peak:
        """What a task holds at its highest, beside the rows that it shares with those of its node."""
        peak = expected_peak(part_of(run, 0), dataset)
        return Peak(peak.moment, peak.parts | {"Ray's connection": CONNECTION_BYTES})

    def fit(self, run: RunConfig, dataset: Dataset, out: Path, *, resume: bool, log: Log) -> dict[str, float]:
        """As `training.parts.fit`, with repetitions trained by tasks."""
        return fit(run, dataset, out, resume=resume, log=log, trainer=self)

    @contextmanager
    def ready(self, run: RunConfig, dataset: Dataset) -> Iterator[Train]:
        """As `training.parts.Trainer` asks for: be connected to the cluster.

        Raises:
            RunError: there is no such cluster, or its nodes are too small.
        """
        memory = self.worker_peak(run, dataset).bytes
        with connected(self._address):
            check_memory(memory, "a repetition")
            yield partial(_train, run, dataset, memory)


def fit_repetition(given: tuple[RunConfig, Dataset], repetition: int, folder: Path, lines: Queue) -> dict[str, float]:
    """A task: train a repetition, from its checkpoint where there is one.

    Args:
        given: the whole run, resolved, and its data.
        repetition: counted from 0.
        folder: of its artifact.
        lines: takes its lines of text.

    Returns:
        The validation measures of the epoch that was kept.

    Raises:
        RunError: the run's folder is not seen from here.
    """
    torch.set_num_threads(1)
    if folder.exists():  # finished by an attempt that died before it could say so
        kept: dict[str, float] = json.loads((folder / METRICS).read_text(encoding="utf-8"))
        return kept
    if not folder.parent.parent.is_dir():
        raise RunError(
            f"{folder.parent.parent}: expected the run's folder, found none on {socket.gethostname()}; "
            "--out must be on storage that all nodes see"
        )
    return fit_part(*given, repetition, folder, lines.put)


def _train(run: RunConfig, dataset: Dataset, memory: int, folders: Mapping[int, Path], log: Log) -> None:
    """Train repetitions.

    Raises:
        RunError: a node does not see the folders.
        PartLost: a repetition's node or process died too often.
        Diverged: a loss is no number any more.
    """
    lines = line_queue()
    given = ray.put((run, dataset))
    task = ray.remote(fit_repetition)
    tasks: dict[Task, int] = {}
    for repetition, folder in folders.items():
        placed = task.options(
            name=part_name(run, repetition),
            num_cpus=1,
            memory=memory,
            max_retries=RETRIES,
            scheduling_strategy="SPREAD",
        )
        tasks[placed.remote(given, repetition, folder.absolute(), lines)] = repetition
    waiting = list(tasks)
    while waiting:
        done, waiting = ray.wait(waiting, timeout=POLL_SECONDS)
        for line in lines.get_nowait_batch(lines.qsize()):
            log(line)
        for finished in done:
            kept = result_of(finished, "a repetition could not be finished")
            log(kept_line(run, tasks[finished], kept))
