"""What a run will cost, said before it starts: `xmc-train fit --dry-run`."""

from __future__ import annotations

import torch

from training.artifact import new_model
from training.data.dataset import Dataset
from training.loop import steps_per_epoch
from training.methods.base import Shape, settled
from training.recipes import RunConfig

FLOAT_BYTES = 4
COPIES = 4  # weights, gradients and AdamW's two moments
MIB = 2**20


def plan(run: RunConfig, dataset: Dataset) -> list[str]:
    """Derived sizes, memory and steps of a resolved run, as lines of text."""
    shape = Shape.of(dataset)
    with torch.device("meta"):
        model = new_model(run, shape)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    data_bytes = sum(_csr_bytes(rows.inputs) + _csr_bytes(rows.targets) for rows in (dataset.train, dataset.validation))
    weight_bytes = COPIES * FLOAT_BYTES * parameters
    step_bytes = FLOAT_BYTES * settled(run.training.batch_size) * model.activations_per_row()
    steps = steps_per_epoch(len(dataset.train), run.training)
    return [
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


def _csr_bytes(matrix: object) -> int:
    return sum(getattr(matrix, name).nbytes for name in ("data", "indices", "indptr"))
