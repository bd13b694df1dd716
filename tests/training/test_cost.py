"""Seconds and memory of a run, as `fit --json` writes them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from training.cli import DONE, WRONG_USE, main
from training.cost import Cost, epoch_seconds

SMALL = ("--set", "method.repetitions=2", "method.buckets=4", "encoder.widths=[4]", "training.epochs=3")


def fit(texts: Path, tmp_path: Path, *arguments: str) -> int:
    out = str(tmp_path / "out")
    return main(["fit", "--data", str(texts), "--method", "mach", "--out", out, *arguments, *SMALL])


def test_a_run_writes_what_it_cost(texts: Path, tmp_path: Path) -> None:
    file = tmp_path / "cost.json"
    assert fit(texts, tmp_path, "--json", str(file)) == DONE
    cost = Cost.model_validate_json(file.read_text())
    assert 0 < cost.read_seconds < 60
    assert epoch_seconds(tmp_path / "out" / "history.jsonl") < cost.train_seconds < 60
    assert cost.cpu_seconds > 0
    assert 0 < cost.libraries_bytes <= cost.peak_bytes
    assert cost.planned_bytes >= cost.libraries_bytes


def test_a_continued_run_counts_its_earlier_epochs(texts: Path, tmp_path: Path) -> None:
    """The unfinished run pretends that its first epoch took an hour."""

    def stop(line: str, **options: object) -> None:
        if line.startswith("epoch   1/3"):
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.commands.print", stop, raising=False)
        fit(texts, tmp_path)
    history = tmp_path / "out.part" / "history.jsonl"
    line = json.loads(history.read_text())
    history.write_text(json.dumps(line | {"train_seconds": 3600.0}) + "\n")
    file = tmp_path / "cost.json"
    assert fit(texts, tmp_path, "--resume", "--json", str(file)) == DONE
    assert 3600 < Cost.model_validate_json(file.read_text()).train_seconds < 3700


def test_a_file_that_cannot_be_written_is_refused_before_the_run(
    texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit(texts, tmp_path, "--json", str(tmp_path / "no" / "cost.json")) == WRONG_USE
    assert "--json: expected a file in a folder that exists" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
