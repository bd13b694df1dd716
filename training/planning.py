"""What a run will cost, said before it starts: `xmc-train fit --dry-run`."""

from __future__ import annotations

import torch

from training.artifact import new_model
from training.data.dataset import Dataset
from training.loop import steps_per_epoch
from training.methods.base import Model, Shape, settled
from training.parts import part_count, part_of
from training.recipes import RunConfig

FLOAT_BYTES = 4
COPIES = 4  # weights, gradients and AdamW's two moments
MIB = 2**20


def plan(run: RunConfig, dataset: Dataset) -> list[str]:
    """Derived sizes, memory and steps of a resolved run, as lines of text; memory and steps are those of each part."""
    shape = Shape.of(dataset)
    parts = part_count(run)
    job = part_of(run, 0) if parts > 1 else run
    with torch.device("meta"):
        parameters = _parameters(new_model(run, shape))
        model = new_model(job, shape)
    data_bytes = sum(_csr_bytes(rows.inputs) + _csr_bytes(rows.targets) for rows in (dataset.train, dataset.validation))
    weight_bytes = COPIES * FLOAT_BYTES * _parameters(model)
    step_bytes = FLOAT_BYTES * settled(run.training.batch_size) * model.activations_per_row()
    steps = steps_per_epoch(len(dataset.train), run.training)
    lines = [
        f"data       {shape.train_rows:,} training rows, {len(dataset.validation):,} validation rows, "
        f"{shape.label_count:,} labels, {shape.input_width:,} {'tokens' if shape.text else 'features'}",
        f"method     {run.method.model_dump_json()}",
        f"encoder    {run.encoder.model_dump_json()}",
        f"training   {run.training.model_dump_json()}",
        f"steps      {run.training.epochs} epochs of {steps:,}",
        f"weights    {parameters:,} parameters, {FLOAT_BYTES * parameters / MIB:,.0f} MiB as an artifact",
        f"memory     about {(data_bytes + weight_bytes + step_bytes) / MIB:,.0f} MiB: rows {data_bytes / MIB:,.0f}, "
        f"weights with gradients and moments {weight_bytes / MIB:,.0f}, one step {step_bytes / MIB:,.0f}",
    ]
    return lines if parts == 1 else [*lines, f"parts      {parts}; steps and memory are those of one"]


def _parameters(model: Model) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _csr_bytes(matrix: object) -> int:
    return sum(getattr(matrix, name).nbytes for name in ("data", "indices", "indptr"))
