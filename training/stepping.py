"""One step of all optimisers: by the gradients of one batch or several, in full or in half precision."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import AdamW, Optimizer
from torch.sparse import check_sparse_tensor_invariants

from training.data.batches import Batch
from training.methods.base import Model
from training.optimisers import RowAdagrad
from training.recipes import Precision, TrainingConfig

AUTOCAST: dict[Precision, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Stepper:
    """A model's optimisers, and the scaler of its loss.

    Attributes:
        optimisers: AdamW and, where the model has matrices for it, Adagrad by rows.
        scaler: of the loss in fp16, where small gradients would be lost; bf16 has the range of float32.
    """

    def __init__(self, model: Model, config: TrainingConfig, device: torch.device) -> None:
        self._model = model
        self._half = AUTOCAST.get(config.precision)
        self._device = device.type
        groups = model.parameter_groups(config.learning_rate, config.table_rate, config.encoder_rate)
        self.optimisers: list[Optimizer] = [AdamW(_with_peaks(groups), weight_decay=config.weight_decay, fused=True)]
        if by_rows := model.row_groups(config.learning_rate, config.table_rate, config.adagrad_rate):
            self.optimisers.append(RowAdagrad(_with_peaks(by_rows)))
        # Each worker of a team has label rows of its own, and what all have moves by all gradients.
        own = {id(weight) for weight in model.label_rows()}
        self._common = [weight for weight in model.parameters() if weight.requires_grad and id(weight) not in own]
        self.scaler = torch.amp.GradScaler(self._device, enabled=config.precision == "fp16")

    def step(self, batches: Iterable[Batch], rows: int, multiplier: float) -> float:
        """Move the weights once, by the gradients of all batches.

        Args:
            batches: at least one.
            rows: how many they hold together; each batch counts by its share of them.
            multiplier: of every group's peak rate.

        Returns:
            The mean loss; of a worker its share, which the others' add to.
        """
        for optimiser in self.optimisers:
            optimiser.zero_grad(set_to_none=True)
            for group in optimiser.param_groups:
                group["lr"] = group["peak_lr"] * multiplier
        total = 0.0
        for batch in batches:
            with torch.autocast(self._device, self._half, enabled=self._half is not None):
                loss = self._model.loss(batch) * (len(batch) / rows)
            self._backward(loss)
            total += loss.item()
        self._model.team.add_gradients(self._common)
        for optimiser in self.optimisers:
            self.scaler.step(optimiser)
        self.scaler.update()
        return total

    def _backward(self, loss: Tensor) -> None:
        # torch asks to be told whether to check the sparse gradients that it makes itself.
        with check_sparse_tensor_invariants(enable=False):  # type: ignore[no-untyped-call]
            self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]


def _with_peaks(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [group | {"peak_lr": group["lr"]} for group in groups]
