"""A worker's share of a run: which rows it is given, and what it does with them.

Nothing here knows of Ray: any process of a torch process group can do it.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from training.artifact import new_model
from training.checkpoint import Progress, save_checkpoint
from training.data.batches import Rows
from training.data.dataset import Dataset
from training.distributed.workers import Workers
from training.loop import Log, WorkFolder, train_epochs
from training.methods.base import Model, Shape
from training.recipes import RunConfig


def common_data(dataset: Dataset) -> Dataset:
    """What all workers read of a data set: no training rows, and nothing that only artifacts and re-rankers need."""
    validation = Rows(dataset.validation.inputs, dataset.validation.targets)
    nobody = np.arange(0)
    return replace(
        dataset,
        train=dataset.train.take(nobody),
        points=nobody,
        validation=validation,
        label_texts=None,
        label_words=None,
        tokenizer=None,
        samples=[],
    )


def rows_of_worker(rows: Rows, rank: int, size: int) -> Rows:
    """The training rows that belong to a worker: see `training.team`."""
    return Rows(rows.inputs, rows.targets).take(np.arange(rank, len(rows), size))


def begin(model: Model, work: WorkFolder) -> None:
    """Leave the first weights where workers look for them, unless there is a checkpoint already."""
    if not work.checkpoint.exists():
        save_checkpoint(work.checkpoint, model, [], Progress(), {})


def train_share(
    run: RunConfig, shape: Shape, dataset: Dataset, work: WorkFolder, device: torch.device, log: Log
) -> None:
    """Train as one of the workers of torch's default process group, from the run's checkpoint on.

    Args:
        run: resolved configuration.
        shape: of the whole data set.
        dataset: with the training rows of this worker.
        work: the run's, with a checkpoint in it (`begin`).
        device: of this worker.
        log: takes the lines of text of the first worker.

    Raises:
        Diverged: the loss is no number any more, on all workers.
    """
    torch.manual_seed(run.training.seed)
    model = new_model(run, shape, Workers()).to(device)
    model.attach(type(model).make_tables(run.method, dataset, run.training.seed))
    # Weights and statistics of the data come from the checkpoint; what is kept beside them is of this worker's rows.
    model.initialise(dataset)
    train_epochs(model, run, dataset, work, log)
