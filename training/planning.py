"""What a run will cost, said before it starts: `xmc-train fit --dry-run`.

A run's memory is highest while it reads, makes tables or trains. What is there when the plan is made (libraries, rows,
tokenizer) is measured; what comes on top is counted from the sizes of weights, tables, batches and scores.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from training import memory
from training.artifact import new_model
from training.data.batches import Rows
from training.data.dataset import Dataset
from training.evaluation import SCORES_AT_ONCE
from training.loop import steps_per_epoch
from training.methods.base import Model, Shape, settled
from training.parts import part_count, part_of
from training.recipes import RunConfig
from training.team import Absent
from training.tokens import label_limit
from training.word_memory import ASKING_THE_MODEL, word_moments

FLOAT_BYTES = 4
MIB = 2**20


@dataclass(frozen=True)
class Peak:
    """The highest memory of a run, or of one of its parts.

    Attributes:
        moment: when it is reached.
        parts: what makes it up, in bytes.
    """

    moment: str
    parts: dict[str, int]

    @property
    def bytes(self) -> int:
        """All parts together."""
        return sum(self.parts.values())

    def __str__(self) -> str:
        listed = ", ".join(f"{name} {size / MIB:,.0f}" for name, size in self.parts.items())
        return f"about {self.bytes / MIB:,.0f} MiB while {self.moment}: {listed}"


def plan(run: RunConfig, dataset: Dataset, peak: Peak) -> list[str]:
    """Derived sizes, memory and steps of a resolved run, as lines of text; steps and memory are those of one part.

    Args:
        run: resolved configuration.
        dataset: what it will be fitted to, augmented already.
        peak: as `expected_peak` gives it for them.
    """
    shape = Shape.of(dataset)
    parts = part_count(run)
    parameters, trained = _parameters(_sizes(run, shape))
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
        f"memory     {peak}{'; all but libraries and rows on the GPU' if torch.cuda.is_available() else ''}",
    ]
    if run.reranker is not None:
        lines.append(f"reranker   {run.reranker.model_dump_json()}")
    if parts > 1:
        joined = "" if run.word_classifiers is None else ", or what their joined model takes if that is more"
        lines.append(f"parts      {parts}; steps and memory are those of one{joined}")
    return lines


def expected_peak(run: RunConfig, dataset: Dataset) -> Peak:
    """What a run, or each of its parts, will hold at its highest, if this process has just read the data.

    Args:
        run: resolved configuration.
        dataset: what it will be fitted to, augmented already.
    """
    job = part_of(run, 0) if part_count(run) > 1 else run
    model = _sizes(job, Shape.of(dataset))
    memory.load_libraries()
    memory.return_freed()  # as after reading a run's data
    now = memory.resident_bytes()
    before = {"libraries and rows": now}
    moments = _moments(job, dataset, model) | _reranker_moments(run, dataset)
    peaks = [Peak(moment, before | parts) for moment, parts in moments.items()]
    reading = Peak("reading", before | {"texts": max(0, memory.peak_bytes() - now)})
    return max([reading, *peaks], key=lambda peak: peak.bytes)


def expected_worker_peak(run: RunConfig, dataset: Dataset, workers: int) -> Peak:
    """What the first of the workers that train one model will hold at its highest: no other one holds more.

    Args:
        run: resolved configuration of a method that divides.
        dataset: all of what it will be fitted to, augmented already.
        workers: W.
    """
    memory.load_libraries()
    memory.return_freed()
    now = memory.resident_bytes()
    share = replace(dataset, train=dataset.train.take(np.arange(0, len(dataset.train), workers)))
    others = _bytes(dataset.train) - _bytes(share.train)
    batch = -(-settled(run.training.batch_size) // workers)
    run = run.model_copy(update={"training": run.training.model_copy(update={"batch_size": batch})})
    with torch.device("meta"):
        model = new_model(run, Shape.of(dataset), Absent(workers))
    # Of a checkpoint, which the first worker writes, it holds all rows of what is divided.
    divided = sum(workers * (weight.numel() + _kept(model, weight)) for weight in model.label_rows())
    exchanged = FLOAT_BYTES * max(divided, model.exchanged_floats(share))
    parts = {"libraries and rows": now - others} | _moments(run, share, model)["training"]
    return Peak("training", parts | {"what others have": exchanged})


def _bytes(rows: Rows) -> int:
    matrices = (rows.inputs, rows.targets)
    return sum(array.nbytes for matrix in matrices for array in (matrix.indptr, matrix.indices, matrix.data))


def _parameters(model: Model) -> tuple[int, int]:
    """All, and those of them that are trained."""
    weights = list(model.parameters())
    return sum(weight.numel() for weight in weights), sum(weight.numel() for weight in weights if weight.requires_grad)


def _frozen(parameters: int) -> str:
    return f" ({parameters:,} of them frozen)" if parameters else ""


def _read_activations(model: Model, run: RunConfig, dataset: Dataset) -> int:
    """Floats that encoders hold of the tokens of one step, each text taken for as long as the longest."""
    longest = int(np.diff(dataset.train.inputs.indptr).max())
    points = min(settled(run.training.batch_size), len(dataset.train)), longest
    labels = model.label_texts_per_step(), min(longest, label_limit(run.texts))
    encoders = model.own_encoders()
    return sum(
        texts * encoder.activations_per_text(tokens) for texts, tokens in (points, labels) for encoder in encoders
    )


def _remembered_bytes(model: Model, dataset: Dataset) -> int:
    """What frozen encoders have computed once and for all."""
    encoded = (dataset.train.inputs, *model.encoded_rows(dataset))
    return sum(encoder.remembered_bytes(rows) for encoder in model.own_encoders() for rows in encoded)


def _sizes(run: RunConfig, shape: Shape) -> Model:
    """The model without its weights: a run that is far too large for this machine can be planned."""
    with torch.device("meta"):
        return new_model(run, shape)


def _moments(run: RunConfig, dataset: Dataset, model: Model) -> dict[str, dict[str, int]]:
    """The moments at which memory may be highest: bytes of what is then held beside what is there already."""
    weights = FLOAT_BYTES * _parameters(model)[0]
    rows = min(settled(run.training.batch_size), len(dataset.train))
    activations = rows * model.activations_per_row() + model.activations_per_batch()
    activations += _read_activations(model, run, dataset)
    remembering = max(encoder.activations_remembering() for encoder in model.own_encoders())
    remembered = _remembered_bytes(model, dataset)
    stepping, scoring = FLOAT_BYTES * activations, _scoring_bytes(model, dataset)
    return {
        "making tables": {"weights": weights, "tables and workspace": model.making_bytes(dataset)},
        "encoding rows once": {
            "weights": weights,
            "tables": model.table_bytes(dataset) + remembered,
            "activations": FLOAT_BYTES * remembering,
        },
        # Steps and the ranking of validation rows take turns, and gradients are dropped before a step; but the
        # allocator keeps the place of each, and of what one leaves about half is of use to the other: of 6,000 rows of
        # the embedded sample 48 MiB of 74 with UniDEC, 51 of 59 with one-vs-all, 2 of 22 with MACH.
        "training": {
            "weights, gradients and moments": FLOAT_BYTES * _learned(model),
            "tables": model.table_bytes(dataset) + remembered,
            "activations": stepping,
            "scores": scoring - min(stepping, scoring) // 2,
        },
    }


def _reranker_moments(run: RunConfig, dataset: Dataset) -> dict[str, dict[str, int]]:
    """The same of a run's word classifiers, which follow when the optimisers are gone, and all parts are one model."""
    if run.word_classifiers is None:
        return {}
    model = _sizes(run, Shape.of(dataset))
    own = {
        "weights": FLOAT_BYTES * _parameters(model)[0],
        "tables": model.table_bytes(dataset) + _remembered_bytes(model, dataset),
    }
    moments = word_moments(dataset, run.word_classifiers, run.texts.piece_count)
    moments[ASKING_THE_MODEL]["scores"] = _scoring_bytes(model, dataset)
    return {moment: own | parts for moment, parts in moments.items()}


def _scoring_bytes(model: Model, dataset: Dataset) -> int:
    """What the ranking of held-out rows takes."""
    queries = min(len(dataset.validation), max(1, SCORES_AT_ONCE // model.scores_per_query(dataset.label_count)))
    return FLOAT_BYTES * model.scoring_floats(queries, dataset.label_count)


def _learned(model: Model) -> int:
    """Floats that belong to the weights: themselves, gradients, and what the optimisers keep."""
    embeddings = [module for module in model.modules() if isinstance(module, nn.Embedding | nn.EmbeddingBag)]
    sparse = {id(module.weight) for module in embeddings if module.sparse}
    floats = 0
    for weight in model.parameters():
        if not weight.requires_grad:
            floats += weight.numel()
            continue
        # A sparse gradient is as large as its batch: see `activations_per_batch`.
        gradient = 0 if id(weight) in sparse else weight.numel()
        floats += weight.numel() + gradient + _kept(model, weight)
    return floats


def _kept(model: Model, weight: nn.Parameter) -> int:
    """What its optimiser keeps of a weight: AdamW two moments of every number, Adagrad one number for each row."""
    by_rows = (each for group in model.row_groups(1, 1, 1) for each in group["params"])
    return len(weight) if any(weight is each for each in by_rows) else 2 * weight.numel()
