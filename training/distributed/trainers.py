"""What of a run Ray's nodes do, by its method."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from training.data.dataset import Dataset
from training.distributed.factors import RayFactors
from training.distributed.repetitions import RayTasks
from training.loop import RunError
from training.methods import METHODS
from training.methods.declare import DeclareConfig
from training.parts import part_count
from training.planning import Peak
from training.recipes import RunConfig


class RayTrainer(Protocol):
    """Fits runs with the help of a cluster."""

    def worker_peak(self, run: RunConfig, dataset: Dataset) -> Peak:
        """What each worker will hold at its highest, beside Ray's own store; see `training.planning.expected_peak`."""

    def fit(
        self, run: RunConfig, dataset: Dataset, out: Path, *, resume: bool, log: Callable[[str], None]
    ) -> dict[str, float]:
        """As `training.parts.fit`."""


def ray_trainer(run: RunConfig, address: str, workers: int | None) -> RayTrainer:
    """The trainer of a resolved run.

    Args:
        run: resolved configuration.
        address: see `training.distributed.cluster.connected`.
        workers: how many are to train one model together; None: nobody said.

    Raises:
        RunError: several machines have nothing to do in it, or not as many as was said.
    """
    if part_count(run) == 1 and METHODS[run.method.name].divides:
        return _workers(run, address, workers)
    if workers is not None:
        raise RunError(
            f"--workers: expected one model of UniDEC, DEPSL or one-vs-all, found {run.method.name}, which they cannot "
            "divide"
        )
    if part_count(run) > 1:
        return RayTasks(address)
    if isinstance(run.method, DeclareConfig):
        return RayFactors(address)
    raise RunError(
        "--ray: expected MACH whose repetitions need nothing of each other (--recipe mach-independent, or "
        f"method.networks=independent), DECLARE, UniDEC, DEPSL or one-vs-all, found {run.method.name}"
    )


def _workers(run: RunConfig, address: str, workers: int | None) -> RayTrainer:
    # Ray Train takes seconds to import, which no other trainer needs.
    from training.distributed.one_model import RayWorkers

    if workers is None:
        raise RunError("--ray: expected --workers W, as many as are to train this model together")
    if run.training.precision == "fp16":
        raise RunError(
            "training.precision fp16: expected bf16 or fp32 with --workers, which share no scale of the loss"
        )
    return RayWorkers(address, workers)
