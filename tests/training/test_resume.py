"""A run that was stopped, at whatever moment, ends as if it had not been; nobody's files are overwritten."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.training.synthetic import load, tiny
from tests.training.test_loop import history
from training.loop import RunError, fit
from training.recipes import RunConfig

ROOT = Path(__file__).parents[2]
EPOCHS = 4

KILLED = """
import os, signal, sys
from pathlib import Path
from tests.training.synthetic import load, tiny
from training.loop import fit

def kill(line):
    if line.split()[1] == "2/4":
        os.kill(os.getpid(), signal.SIGKILL)

dataset, run = load(Path(sys.argv[1]), tiny(sys.argv[3], epochs=4))
fit(run, dataset, Path(sys.argv[2]), resume=False, log=kill)
"""


class Stopped(Exception):
    """Raised in the middle of a run."""


def stop_after(epoch: int, folder: Path, out: Path, run: RunConfig) -> None:
    """Start a run and stop it when it says that it has done so many epochs."""

    def log(line: str) -> None:
        if line.split()[1] == f"{epoch}/{EPOCHS}":
            raise Stopped

    dataset, resolved = load(folder, run)
    with pytest.raises(Stopped):
        fit(resolved, dataset, out, resume=False, log=log)
    assert not out.exists()


def resume(folder: Path, out: Path, run: RunConfig) -> list[str]:
    lines: list[str] = []
    dataset, resolved = load(folder, run)
    fit(resolved, dataset, out, resume=True, log=lines.append)
    return lines


def assert_same_artifact(left: Path, right: Path) -> None:
    assert history(left) == history(right)
    for file in sorted(path.relative_to(left) for path in left.rglob("*") if path.is_file()):
        if file.name not in ("history.jsonl", "metrics.json"):
            assert (left / file).read_bytes() == (right / file).read_bytes(), file


@pytest.mark.parametrize("method", ["mach", "declare", "unidec", "ova"])
@pytest.mark.parametrize("epoch", [1, 2, EPOCHS])
def test_a_resumed_run_ends_as_an_uninterrupted_one(texts: Path, tmp_path: Path, method: str, epoch: int) -> None:
    """Dropout on, and drawn pools: all randomness of an epoch must come back.

    UniDEC's third epoch reads the clusters and mined labels that were found before the second.
    """
    run = tiny(method, epochs=EPOCHS)
    assert run.encoder.dropout > 0
    dataset, resolved = load(texts, run)
    fit(resolved, dataset, tmp_path / "whole", resume=False, log=print)
    stop_after(epoch, texts, tmp_path / "stopped", run)
    lines = resume(texts, tmp_path / "stopped", run)
    assert lines[0] == f"resuming after epoch {epoch} of {EPOCHS}"
    assert len(lines) == 1 + EPOCHS - epoch
    assert_same_artifact(tmp_path / "whole", tmp_path / "stopped")


def test_a_killed_process_is_resumed_by_another(texts: Path, tmp_path: Path) -> None:
    """Nothing but the folder survives a SIGKILL; the new process must read texts and labels as the old one did."""
    run = tiny("mach", epochs=EPOCHS)
    command = [sys.executable, "-c", KILLED, str(texts), str(tmp_path / "killed"), "mach"]
    killed = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    resume(texts, tmp_path / "killed", run)
    dataset, resolved = load(texts, run)
    fit(resolved, dataset, tmp_path / "whole", resume=False, log=print)
    assert_same_artifact(tmp_path / "whole", tmp_path / "killed")


def test_a_kill_between_two_files_of_an_epoch_does_no_harm(texts: Path, tmp_path: Path) -> None:
    """The best weights and the history run ahead of the checkpoint; what they hold of an unfinished epoch is redone."""
    run = tiny("mach", epochs=EPOCHS)
    dataset, resolved = load(texts, run)
    fit(resolved, dataset, tmp_path / "whole", resume=False, log=print)
    stop_after(1, texts, tmp_path / "out", run)
    part = tmp_path / "out.part"
    checkpoint = (part / "checkpoint.safetensors").read_bytes()
    stop_ahead = tmp_path / "ahead"
    stop_after(2, texts, stop_ahead, run)
    for name in ("best.safetensors", "history.jsonl"):
        (part / name).write_bytes((tmp_path / "ahead.part" / name).read_bytes())
    with (part / "history.jsonl").open("a") as file:
        file.write('{"epoch": 3, "lo')
    (part / "checkpoint.safetensors.tmp").write_bytes(b"half a file")
    assert (part / "checkpoint.safetensors").read_bytes() == checkpoint
    resume(texts, tmp_path / "out", run)
    assert_same_artifact(tmp_path / "whole", tmp_path / "out")


def test_a_kill_while_the_artifact_is_written_does_no_harm(texts: Path, tmp_path: Path) -> None:
    run = tiny("mach", epochs=EPOCHS)
    dataset, resolved = load(texts, run)
    fit(resolved, dataset, tmp_path / "whole", resume=False, log=print)
    stop_after(EPOCHS, texts, tmp_path / "out", run)
    half = tmp_path / "out.part" / "artifact"
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"half a file")
    (half / "old").write_text("a leftover")
    resume(texts, tmp_path / "out", run)
    assert_same_artifact(tmp_path / "whole", tmp_path / "out")
    assert not (tmp_path / "out" / "old").exists()


def test_resume_without_an_unfinished_run_starts_one(texts: Path, tmp_path: Path) -> None:
    lines = resume(texts, tmp_path / "out", tiny("mach", epochs=1))
    assert (tmp_path / "out" / "config.json").exists()
    assert not any(line.startswith("resuming") for line in lines)


def test_an_unfinished_run_is_neither_overwritten_nor_taken_up_unasked(texts: Path, tmp_path: Path) -> None:
    run = tiny("mach", epochs=EPOCHS)
    stop_after(1, texts, tmp_path / "out", run)
    before = {path.name: path.read_bytes() for path in (tmp_path / "out.part").iterdir()}
    dataset, resolved = load(texts, run)
    with pytest.raises(RunError, match=r"out\.part holds an unfinished run; continue it with --resume, or remove it"):
        fit(resolved, dataset, tmp_path / "out", resume=False, log=print)
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "out.part").iterdir()}


def test_another_configuration_does_not_continue_a_run(texts: Path, tmp_path: Path) -> None:
    stop_after(1, texts, tmp_path / "out", tiny("mach", epochs=EPOCHS))
    before = (tmp_path / "out.part" / "checkpoint.safetensors").read_bytes()
    for other in (tiny("mach", epochs=EPOCHS, learning_rate=0.5), tiny("declare", epochs=EPOCHS)):
        with pytest.raises(RunError, match=r"out\.part was started with another configuration .*run\.json"):
            resume(texts, tmp_path / "out", other)
    assert (tmp_path / "out.part" / "checkpoint.safetensors").read_bytes() == before


def test_other_data_does_not_continue_a_run(texts: Path, tmp_path: Path) -> None:
    """The same configuration, but one more training point: ids, batches and held-out rows would all be others."""
    folder = tmp_path / "data"
    folder.mkdir()
    for file in texts.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    stop_after(1, folder, tmp_path / "out", tiny("mach", epochs=EPOCHS))
    with (folder / "trn.json").open("a") as file:
        file.write(json.dumps({"uid": "new", "title": "purple red house", "target_ind": [0]}) + "\n")
    with pytest.raises(RunError, match=r"out\.part was started with other data"):
        resume(folder, tmp_path / "out", tiny("mach", epochs=EPOCHS))
