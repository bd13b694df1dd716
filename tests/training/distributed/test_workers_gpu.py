"""Workers on GPUs, each of its own, by NCCL; as many as there are."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.distributed.pair import fit_by, started
from tests.training.distributed.test_workers import RUNS
from tests.training.synthetic import load
from training.loop import fit


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["unidec", "table by rows", "ova-pruned", "astra"])
def test_workers_on_gpus_train_the_model_of_one(texts: Path, tmp_path: Path, name: str) -> None:
    """Sums on GPUs are not repeated to the bit: losses tell."""
    dataset, run = load(texts, RUNS[name])
    fit(run, dataset, tmp_path / "alone", resume=False, log=print)
    with started(tmp_path / "meeting", torch.cuda.device_count(), "cpu:gloo,cuda:nccl") as workers:
        fit_by(workers, run, dataset, tmp_path / "out")
    lines = [(tmp_path / folder / "history.jsonl").read_text().splitlines() for folder in ("out", "alone")]
    np.testing.assert_allclose(*([json.loads(line)["loss"] for line in each] for each in lines), rtol=1e-2)
