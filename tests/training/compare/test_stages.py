"""What is left of an entry when one of its commands cannot do its work."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.training.compare.conftest import SMALL
from training.compare import stages
from training.compare.entries import Entry
from training.compare.stages import StageFailed, Stages

KILLED = """
import os, signal
if __name__ == "__main__":
    os.kill(os.getpid(), signal.SIGKILL)
"""


def small(data: Path, out: Path) -> Stages:
    return Stages(str(data), out, SMALL, log=lambda line: None)


@pytest.mark.parametrize(("missing", "stage", "exported"), [("EXPORT", "bundles", False), ("SERVE", "latencies", True)])
def test_without_export_or_service_their_columns_stay_empty(
    compared: Path,
    features: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    missing: str,
    stage: str,
    exported: bool,
) -> None:
    """As in an environment where training alone is installed."""
    out = tmp_path / "out"
    shutil.copytree(compared, out)
    shutil.rmtree(out / stage)
    monkeypatch.setattr(stages, missing, "no_such_package.cli")
    made = small(features, out).make(Entry("declare", None))
    assert made.bundle == (out / "bundles" / "declare" if exported else None)
    assert made.latency is None
    assert made.ranking.exists()
    assert len(made.notes) == 1
    assert "no_such_package" in made.notes[0]


def test_a_command_that_is_killed_is_no_refusal(
    features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "killed.py").write_text(KILLED)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(stages, "TRAIN", "killed")
    with pytest.raises(StageFailed, match="ended by signal 9, as by a system that runs out of memory") as caught:
        small(features, tmp_path / "out").make(Entry("declare", None))
    assert not caught.value.refused


def test_a_refusal_is_told_without_the_program_s_name(tmp_path: Path) -> None:
    with pytest.raises(StageFailed, match=r"^.*no data here: expected a data folder, found nothing$") as caught:
        small(tmp_path / "no data here", tmp_path / "out").make(Entry("mach", None))
    assert caught.value.refused
    assert not str(caught.value).startswith("xmc-train")
