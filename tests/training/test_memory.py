"""A run's peak memory is what its plan said, and what is measured is what the system says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.training.synthetic import MINILM
from training import memory
from training.cost import Cost
from training.data.sample import slice_to
from training.methods import METHODS

ROOT = Path(__file__).parents[2]
MIB = 2**20


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample") / "slice"
    slice_to(folder, points=6000)
    return folder


# The smallest steps on a transformer that are more than its weights.
TRANSFORMER = [
    "encoder.kind=transformer",
    f"encoder.model={MINILM}",
    "encoder.layers=2",
    "encoder.max_tokens=16",
    "training.batch_size=256",
]


@pytest.mark.parametrize(
    ("recipe", "changes"),
    [(method, []) for method in METHODS]
    + [(f"{method}-reranked", []) for method in METHODS]
    + [("mach", TRANSFORMER), ("mach", [*TRANSFORMER, "encoder.frozen=true", "encoder.widths=[500]"])],
    ids=[*METHODS, *(f"{method}-reranked" for method in METHODS), "transformer", "frozen"],
)
def test_the_plan_is_within_a_fifth_of_the_peak(data: Path, tmp_path: Path, recipe: str, changes: list[str]) -> None:
    """Of what the run adds to the libraries, in a process of its own, with the sizes a user would get."""
    file = tmp_path / "cost.json"
    options = ["--set", "training.epochs=1", *changes, "--json", str(file)]
    arguments = ["fit", "--data", str(data), "--recipe", recipe, "--out", str(tmp_path / "out"), *options]
    command = [sys.executable, "-m", "training.cli", *arguments]
    subprocess.run(command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True, capture_output=True)
    cost = Cost.model_validate_json(file.read_text())
    added, planned = cost.peak_bytes - cost.libraries_bytes, cost.planned_bytes - cost.libraries_bytes
    assert added == pytest.approx(planned, rel=0.2), f"{added / MIB:.0f} MiB, planned {planned / MIB:.0f}"
    assert planned > 50 * MIB


def test_what_is_held_is_counted_and_a_peak_is_remembered() -> None:
    before = memory.resident_bytes()
    block = np.ones(64 * MIB, dtype=np.uint8)
    assert memory.resident_bytes() >= before + 60 * MIB
    del block
    assert memory.resident_bytes() < before + 60 * MIB
    assert memory.peak_bytes() >= before + 60 * MIB
    memory.forget_peak()
    assert memory.peak_bytes() < before + 60 * MIB


def test_without_proc_the_system_s_own_figure_serves(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As on a Mac; the figure is the peak, never less than what is held."""
    held = memory.resident_bytes()
    monkeypatch.setattr(memory, "STATUS", tmp_path / "none")
    assert memory.peak_bytes() >= 0.9 * held
    assert memory.resident_bytes() == memory.peak_bytes()


def test_huge_pages_are_asked_for_unless_the_user_decided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("THP_MEM_ALLOC_ENABLE", raising=False)
    memory.use_huge_pages()
    assert os.environ["THP_MEM_ALLOC_ENABLE"] == "1"
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "0")
    memory.use_huge_pages()
    assert os.environ["THP_MEM_ALLOC_ENABLE"] == "0"
