"""What of a run Ray's nodes do, by its method."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from training.data.dataset import Dataset
from training.distributed.factors import RayFactors
from training.distributed.repetitions import RayTasks
from training.loop import RunError
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


def ray_trainer(run: RunConfig, address: str) -> RayTrainer:
    """The trainer of a resolved run.

    Args:
        run: resolved configuration.
        address: see `training.distributed.cluster.connected`.

    Raises:
        RunError: several machines have nothing to do in it.
    """
    if part_count(run) > 1:
        return RayTasks(address)
    if isinstance(run.method, DeclareConfig):
        return RayFactors(address)
    raise RunError(
        "--ray: expected MACH whose repetitions need nothing of each other (--recipe mach-independent, or "
        f"method.networks=independent), or DECLARE, found {run.method.name}"
    )
