"""Times what the classifiers of one-vs-all recipes cost in an epoch, apart from the encoder.

    python -m tests.benchmarks.classifiers --data DIR --recipes ova-full,astra

A step is timed with its loss, and with a loss that stops at the encoder; the classifiers' part is the difference: loss,
gradients and updates. The mining of hard negatives is theirs too, shared out over the epochs that it serves. Recipes
take turns, so that other work on the machine hits all of them; each figure is a median.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import median

import numpy as np
import torch
from torch import Tensor

from training.artifact import new_model
from training.data.batches import Batch
from training.data.dataset import Dataset
from training.data.records import open_named
from training.loop import steps_per_epoch
from training.methods.base import Shape, settled
from training.methods.ova import Ova, OvaConfig
from training.overrides import configured
from training.recipes import RunConfig, prepared
from training.stepping import Stepper
from training.team import ALONE

WARM_UP, STEPS = 3, 30
CPU = torch.device("cpu")


@dataclass
class Timed:
    """A recipe's model, and the seconds of its steps.

    Attributes:
        config: the method's options.
        model: after one epoch's begin, in which hard negatives were mined if the recipe wants them.
        stepper: of all weights.
        mining: seconds of that.
        whole: seconds of steps.
        encoder: seconds of steps without classifiers.
    """

    config: OvaConfig
    model: Ova
    stepper: Stepper
    mining: float
    whole: list[float] = field(default_factory=list)
    encoder: list[float] = field(default_factory=list)

    def step(self, batch: Batch, *, classifiers: bool) -> None:
        """Time one step."""
        started = time.perf_counter()
        if classifiers:
            self.stepper.step([batch], len(batch), 1.0)
        else:
            self._step_encoder(batch)
        (self.whole if classifiers else self.encoder).append(time.perf_counter() - started)

    def classifier_seconds(self, steps: int) -> float:
        """Of an epoch of so many steps."""
        whole, encoder = (median(times[WARM_UP:]) for times in (self.whole, self.encoder))
        return steps * (whole - encoder) + self.mining / self.config.refresh_every

    def _step_encoder(self, batch: Batch) -> None:
        loss = self.model.loss

        def encoded(batch: Batch) -> Tensor:
            return self.model.encoder(batch.bags).sum()

        self.model.loss = encoded  # type: ignore[method-assign]
        try:
            self.stepper.step([batch], len(batch), 1.0)
        finally:
            self.model.loss = loss  # type: ignore[method-assign]


def main() -> None:
    """Print one line a recipe."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, metavar="DIR", help="data folder, or: sample")
    parser.add_argument("--recipes", default="ova-full,astra", metavar="A,B,…")
    arguments = parser.parse_args()
    names = arguments.recipes.split(",")
    run, dataset = prepared(configured(names[0]), open_named(arguments.data))
    timed = {name: begin(configured(name).resolved(Shape.of(dataset)), dataset) for name in names}
    for batch in batches(dataset, settled(run.training.batch_size)):
        for one in timed.values():
            one.step(batch, classifiers=False)
            one.step(batch, classifiers=True)
    steps = steps_per_epoch(len(dataset.train), run.training)
    first = timed[names[0]].classifier_seconds(steps)
    for name, one in timed.items():
        seconds = one.classifier_seconds(steps)
        print(
            f"{name:12} encoder {steps * median(one.encoder[WARM_UP:]):7.1f} s an epoch, classifiers {seconds:7.1f} s "
            f"({seconds / first:.2f} of {names[0]}), of that mining {one.mining / one.config.refresh_every:.1f} s"
        )


def begin(run: RunConfig, dataset: Dataset) -> Timed:
    """The model of a run as it is when hard negatives are mined first."""
    torch.manual_seed(run.training.seed)
    model = new_model(run, Shape.of(dataset))
    if not isinstance(model, Ova) or not isinstance(run.method, OvaConfig):
        raise SystemExit(f"expected recipes of the method ova, found one of {run.method.name}")
    model.initialise(dataset)
    started = time.perf_counter()
    model.begin_epoch(run.method.hard_from, dataset)
    mining = time.perf_counter() - started
    model.train()
    return Timed(run.method, model, Stepper(model, run.training, CPU), mining)


def batches(dataset: Dataset, batch_size: int) -> Iterator[Batch]:
    """Of random rows."""
    rows = np.random.default_rng(0).permutation(len(dataset.train))[: (WARM_UP + STEPS) * batch_size]
    return ALONE.batches(dataset.train, rows, batch_size, CPU)


if __name__ == "__main__":
    main()
