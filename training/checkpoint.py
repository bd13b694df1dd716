"""The state of an unfinished run, in one file that is replaced at once.

A run draws all its randomness from (seed, epoch), so weights, optimiser moments, what the method renewed before an
earlier epoch and the epoch's number are the whole state. It is kept as safetensors (no pickle); the header carries the
numbers. What the workers of a team have one part each of is put together for it, so that a run may go on with another
number of workers, or with none.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from training.team import ALONE, Team

MODEL = "model."
RENEWED = "renewed."
OPTIMISER = "optimiser."


@dataclass
class Progress:
    """How far a run has come.

    Attributes:
        epoch: epochs done.
        best: best value of the selection measure so far.
        best_epoch: the epoch it belongs to.
        scaler: state of the loss's scaler, where there is one.
    """

    epoch: int = 0
    best: float = float("-inf")
    best_epoch: int = 0
    scaler: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Division:
    """What a worker has its own rows of.

    Attributes:
        team: its.
        weights: which are divided.
    """

    team: Team = ALONE
    weights: Sequence[nn.Parameter] = ()

    def is_divided(self, weight: Tensor, tensor: Tensor) -> bool:
        """Whether a tensor that belongs to a weight has a row for each of the weight's."""
        divided = any(weight is each for each in self.weights)
        return divided and tensor.shape[:1] == weight.shape[:1]

    def whole(self, weight: Tensor, tensor: Tensor) -> Tensor:
        """All rows of it, on the first worker."""
        return self.team.at_first(tensor) if self.is_divided(weight, tensor) else tensor

    def own(self, weight: Tensor, tensor: Tensor) -> Tensor:
        """This worker's rows of a whole tensor that belongs to a weight."""
        divided = any(weight is each for each in self.weights) and tensor.dim() > 0
        return tensor[self.team.mine].contiguous() if divided else tensor


UNDIVIDED = Division()


def whole_weights(model: nn.Module, division: Division = UNDIVIDED) -> dict[str, Tensor]:
    """The model's state, put together on the first worker."""
    weights = dict(model.named_parameters())
    return {name: division.whole(weights.get(name, tensor), tensor) for name, tensor in model.state_dict().items()}


def save_checkpoint(
    path: Path,
    model: nn.Module,
    optimisers: Sequence[Optimizer],
    progress: Progress,
    renewed: Mapping[str, Tensor],
    division: Division = UNDIVIDED,
) -> None:
    """Replace the checkpoint: readers see the old one or the new one, never a part.

    The first worker of a team writes it, and all take part.

    Args:
        path: the file.
        model: its weights.
        optimisers: their moments.
        progress: how far the run has come.
        renewed: see `training.methods.base.Model.renewed`.
        division: what a worker has its own rows of.
    """
    tensors = {MODEL + name: tensor for name, tensor in whole_weights(model, division).items()}
    tensors |= {RENEWED + name: tensor for name, tensor in renewed.items()}
    for position, optimiser in enumerate(optimisers):
        weights = _weights(optimiser)
        for index, state in optimiser.state_dict()["state"].items():
            for name, value in state.items():
                tensors[f"{OPTIMISER}{position}.{index}.{name}"] = division.whole(weights[index], value)
    if division.team.rank == 0:
        save_tensors(path, tensors, {"progress": json.dumps(asdict(progress))})


def load_checkpoint(
    path: Path, model: nn.Module, optimisers: Sequence[Optimizer], division: Division = UNDIVIDED
) -> tuple[Progress, dict[str, Tensor]]:
    """Continue where `save_checkpoint` stopped: progress, and what was renewed; model and optimisers take theirs."""
    weights: dict[str, Tensor] = {}
    renewed: dict[str, Tensor] = {}
    moments: list[dict[int, dict[str, Tensor]]] = [{} for _ in optimisers]
    named, of_optimisers = dict(model.named_parameters()), [_weights(optimiser) for optimiser in optimisers]
    with safe_open(path, framework="pt") as file:
        progress = Progress(**json.loads(file.metadata()["progress"]))
        for name in file.keys():  # noqa: SIM118 (not a dict)
            if name.startswith(MODEL):
                name = name.removeprefix(MODEL)
                tensor = file.get_tensor(MODEL + name)
                weights[name] = division.own(named.get(name, tensor), tensor)
            elif name.startswith(RENEWED):
                renewed[name.removeprefix(RENEWED)] = file.get_tensor(name)
            else:
                position, index, key = name.removeprefix(OPTIMISER).split(".", 2)
                weight = of_optimisers[int(position)][int(index)]
                moments[int(position)].setdefault(int(index), {})[key] = division.own(weight, file.get_tensor(name))
    model.load_state_dict(weights)
    for optimiser, state in zip(optimisers, moments, strict=True):
        optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    return progress, renewed


def _weights(optimiser: Optimizer) -> list[Tensor]:
    """In the order in which an optimiser's state counts them."""
    return [weight for group in optimiser.param_groups for weight in group["params"]]


def temporary_beside(path: Path) -> Path:
    """A file to be written and renamed to ``path``, which no other process writes.

    A worker that was taken for dead may still be writing while its successor on another machine writes the same.
    """
    return path.with_name(f"{path.name}.{socket.gethostname()}.{os.getpid()}.tmp")


def save_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write tensors beside ``path`` and rename."""
    partial = temporary_beside(path)
    save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, partial, metadata)
    partial.replace(path)
