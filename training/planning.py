"""What a run will cost, said before it starts: `xmc-train fit --dry-run`."""

from __future__ import annotations

import numpy as np
import torch

from training.artifact import new_model
from training.data.dataset import Dataset
from training.loop import steps_per_epoch
from training.methods.base import Model, Shape, settled
from training.parts import part_count, part_of
from training.recipes import RunConfig
from training.tokens import label_limit

FLOAT_BYTES = 4
COPIES = 4  # weights, gradients and AdamW's two moments
MIB = 2**20


def plan(run: RunConfig, dataset: Dataset) -> list[str]:
    """Derived sizes, memory and steps of a resolved run, as lines of text; memory and steps are those of each part."""
    shape = Shape.of(dataset)
    parts = part_count(run)
    job = part_of(run, 0) if parts > 1 else run
    with torch.device("meta"):
        whole, model = new_model(run, shape), new_model(job, shape)
    parameters, trained = _parameters(model)
    data_bytes = sum(_csr_bytes(rows.inputs) + _csr_bytes(rows.targets) for rows in (dataset.train, dataset.validation))
    encoded = (dataset.train.inputs, *model.encoded_rows(dataset))
    data_bytes += sum(encoder.remembered_bytes(rows) for encoder in model.own_encoders() for rows in encoded)
    weight_bytes = FLOAT_BYTES * (parameters - trained + COPIES * trained)
    step_bytes = FLOAT_BYTES * (
        settled(run.training.batch_size) * model.activations_per_row() + _encoder_activations(model, run, dataset)
    )
    parameters, trained = _parameters(whole)
    steps = steps_per_epoch(len(dataset.train), run.training)
    lines = [
        f"data       {shape.train_rows:,} training rows, {len(dataset.validation):,} validation rows, "
        f"{shape.label_count:,} labels, {shape.input_width:,} {'tokens' if shape.text else 'features'}",
        f"method     {run.method.model_dump_json()}",
        f"encoder    {run.encoder.model_dump_json(exclude={'architecture'})}",
        f"training   {run.training.model_dump_json()}",
        f"steps      {run.training.epochs} epochs of {steps:,}",
        f"weights    {parameters:,} parameters{_frozen(parameters - trained)}, "
        f"{FLOAT_BYTES * parameters / MIB:,.0f} MiB as an artifact",
        f"memory     about {(data_bytes + weight_bytes + step_bytes) / MIB:,.0f} MiB: rows {data_bytes / MIB:,.0f}, "
        f"weights with gradients and moments {weight_bytes / MIB:,.0f}, one step {step_bytes / MIB:,.0f}",
    ]
    return lines if parts == 1 else [*lines, f"parts      {parts}; steps and memory are those of one"]


def _parameters(model: Model) -> tuple[int, int]:
    """All, and those of them that are trained."""
    weights = list(model.parameters())
    return sum(weight.numel() for weight in weights), sum(weight.numel() for weight in weights if weight.requires_grad)


def _frozen(parameters: int) -> str:
    return f" ({parameters:,} of them frozen)" if parameters else ""


def _encoder_activations(model: Model, run: RunConfig, dataset: Dataset) -> int:
    """Floats that encoders hold of the texts of one step, each taken for as long as the longest."""
    longest = int(np.diff(dataset.train.inputs.indptr).max())
    points = settled(run.training.batch_size), longest
    labels = model.label_texts_per_step(), min(longest, label_limit(run.texts))
    encoders = model.own_encoders()
    return sum(
        texts * encoder.activations_per_text(tokens) for texts, tokens in (points, labels) for encoder in encoders
    )


def _csr_bytes(matrix: object) -> int:
    return sum(getattr(matrix, name).nbytes for name in ("data", "indices", "indptr"))
