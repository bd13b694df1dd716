"""Repetitions trained apart: the same model however many processes, machines and interruptions it took."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.synthetic import load, tiny
from tests.training.test_resume import assert_same_artifact
from training import hashing
from training.artifact import read_artifact
from training.cli import DONE, WRONG_USE, main
from training.data.batches import Bags
from training.loop import RunError
from training.loop import fit as fit_one
from training.methods.mach import Mach
from training.parts import Processes, fit, join, part_count, part_of, whole_of
from training.recipes import RunConfig

REPETITIONS = 3


def apart(**method: object) -> RunConfig:
    run = tiny("mach-independent", seed=5)
    return run.model_copy(update={"method": run.method.model_copy(update={"repetitions": REPETITIONS} | method)})


@pytest.fixture(scope="module")
def whole(texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model of a run whose parts were trained one after the other."""
    out = tmp_path_factory.mktemp("parts") / "whole"
    dataset, run = load(texts, apart())
    fit(run, dataset, out, resume=False, log=print)
    return out


def test_two_processes_make_the_same_model_as_one(texts: Path, tmp_path: Path, whole: Path) -> None:
    dataset, run = load(texts, apart())
    lines: list[str] = []
    kept = fit(run, dataset, tmp_path / "out", resume=False, log=lines.append, trainer=Processes(2))
    assert lines[0] == "0 of 3 repetitions are done; 2 at a time"
    assert sorted(line.split()[1] for line in lines[1:]) == ["1/3", "2/3", "3/3"]
    assert_same_artifact(whole, tmp_path / "out")
    assert not (tmp_path / "out.part").exists()
    assert kept == json.loads((whole / "metrics.json").read_text())


def test_parts_trained_alone_and_joined_make_the_same_model(texts: Path, tmp_path: Path, whole: Path) -> None:
    """As on machines of their own, by the command line."""
    config = tmp_path / "run.toml"
    method, encoder, training = apart().method, apart().encoder, apart().training
    config.write_text(
        f"[method]\nrepetitions = {REPETITIONS}\nbuckets = 8\n[encoder]\nwidths = {list(encoder.widths or ())}\n"
        f"[vocabulary]\nwords = 40\nmin_count = 1\nsubwords = 60\nmax_tokens = 12\n"
        f"[training]\nepochs = {training.epochs}\nbatch_size = {training.batch_size}\nseed = 5\n"
        f"learning_rate = {training.learning_rate}\nvalidation_fraction = {training.validation_fraction}\n"
    )
    assert method.name == "mach"
    arguments = ["fit", "--data", str(texts), "--recipe", "mach-independent", "--config", str(config)]
    for index in (2, 1, 3):
        assert main([*arguments, "--part", f"{index}/3", "--out", str(tmp_path / f"part-{index}")]) == DONE
    parts = [str(tmp_path / f"part-{index}") for index in (3, 1, 2)]
    assert main(["join", *parts, "--data", str(texts), "--out", str(tmp_path / "out")]) == DONE
    assert_same_artifact(whole, tmp_path / "out")


def test_a_stopped_run_continues_with_the_parts_that_are_missing(texts: Path, tmp_path: Path, whole: Path) -> None:
    """One part is done, one is half done, one is not begun."""
    dataset, run = load(texts, apart())
    out = tmp_path / "out"

    def stop(line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(run, dataset, out, resume=False, log=stop)
    parts = tmp_path / "out.part" / "parts"
    parts.mkdir(exist_ok=True)
    fit_one(part_of(run, 1), dataset, parts / "001", resume=False, log=lambda line: None)
    with pytest.raises(KeyboardInterrupt):
        fit_one(part_of(run, 2), dataset, parts / "002", resume=False, log=stop)
    with pytest.raises(RunError, match=r"out\.part holds an unfinished run"):
        fit(run, dataset, out, resume=False, log=print)
    lines: list[str] = []
    fit(run, dataset, out, resume=True, log=lines.append)
    assert lines[0] == "1 of 3 repetitions are done; 1 at a time"
    assert_same_artifact(whole, out)


def test_the_model_is_the_sum_of_its_parts(texts: Path, tmp_path: Path, whole: Path) -> None:
    dataset, run = load(texts, apart())
    bags = Bags.from_csr(dataset.validation.inputs)
    artifact = read_artifact(whole)
    np.testing.assert_array_equal(artifact.tables["buckets"], hashing.bucket_table(8, REPETITIONS, 8, 5))
    assert artifact.config.run == run
    logits, seen = [], set()
    for repetition in range(REPETITIONS):
        folder = tmp_path / str(repetition)
        fit_one(part_of(run, repetition), dataset, folder, resume=False, log=lambda line: None)
        part = read_artifact(folder).restore()
        logits.append(part(bags).detach())
        seen.add(tuple(dataset.train.inputs[:1].indices) + tuple(logits[-1][0, 0].tolist()))
    assert len(seen) == REPETITIONS  # no two networks began alike
    model = artifact.restore()
    assert isinstance(model, Mach)
    with torch.no_grad():
        assert torch.equal(model(bags), torch.cat(logits, dim=1))


def test_parts_that_move_their_labels_are_joined_with_their_tables(texts: Path, tmp_path: Path) -> None:
    dataset, run = load(texts, apart(repartition_every=1))
    fit(run, dataset, tmp_path / "out", resume=False, log=print)
    artifact = read_artifact(tmp_path / "out")
    model = artifact.restore()
    assert isinstance(model, Mach)
    np.testing.assert_array_equal(model.table_RL.numpy(), artifact.tables["buckets"])
    assert not np.array_equal(artifact.tables["buckets"], hashing.bucket_table(8, REPETITIONS, 8, 5))


def test_a_part_knows_its_run(texts: Path) -> None:
    _, run = load(texts, apart())
    assert part_count(run) == REPETITIONS
    part = part_of(run, 2)
    assert part_count(part) == 1
    assert part.training.seed == run.training.seed + 2
    assert whole_of(part) == run
    with pytest.raises(RunError, match="expected a part, as `fit --part` writes it, found a whole run"):
        whole_of(run)


def test_only_the_parts_of_one_run_are_joined(texts: Path, features: Path, tmp_path: Path, whole: Path) -> None:
    dataset, run = load(texts, apart())
    for repetition in range(REPETITIONS):
        fit_one(part_of(run, repetition), dataset, tmp_path / str(repetition), resume=False, log=lambda line: None)
    parts = [tmp_path / str(repetition) for repetition in range(REPETITIONS)]
    out = tmp_path / "out"
    with pytest.raises(RunError, match="expected the parts 1 to 3, each once, found 1, 3"):
        join([parts[0], parts[2]], dataset, out, log=print)
    with pytest.raises(RunError, match="expected the parts 1 to 3, each once, found 1, 1, 2, 3"):
        join([parts[0], *parts], dataset, out, log=print)
    with pytest.raises(RunError, match="expected a part, as `fit --part` writes it, found a whole run"):
        join([whole, *parts], dataset, out, log=print)
    with pytest.raises(RunError, match="expected the parts of a run, found none"):
        join([], dataset, out, log=print)
    other = load(texts, apart(buckets=9))[1]
    fit_one(part_of(other, 1), dataset, tmp_path / "other", resume=False, log=lambda line: None)
    with pytest.raises(RunError, match=r"other: expected a part of the same run as .*, found another's"):
        join([parts[0], tmp_path / "other", parts[2]], dataset, out, log=print)
    with pytest.raises(RunError, match="0: expected a part trained on features, found other data"):
        join(parts, load(features, apart())[0], out, log=print)
    assert not out.exists()


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main([*arguments]) == WRONG_USE
    return capsys.readouterr().err


@pytest.mark.parametrize("part", ["0/3", "4/3", "1/4", "1", "a/3", "-1/3"])
def test_a_part_must_be_one_of_the_run(texts: Path, capsys: pytest.CaptureFixture[str], part: str) -> None:
    arguments = ("fit", "--data", str(texts), "--recipe", "mach-independent", "--out", "never-written", "--dry-run")
    error = refused(capsys, *arguments, "--set", "method.repetitions=3", f"--part={part}")
    assert f"--part: expected I/3 with I from 1, as this run has 3 parts, found '{part}'" in error


def test_runs_without_parts_take_neither_option(texts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("fit", "--data", str(texts), "--method", "mach", "--out", "never-written", "--dry-run")
    assert "--part: this run has no parts" in refused(capsys, *arguments, "--part", "1/1")
    assert "--processes: this run has no parts" in refused(capsys, *arguments, "--processes", "2")
    assert "--processes: expected at least 1, found 0" in refused(capsys, *arguments, "--processes", "0")


def test_parts_are_not_joined_over_a_users_folder(
    texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    part, out = tmp_path / "part", tmp_path / "out"
    dataset, run = load(texts, apart())
    fit_one(part_of(run, 0), dataset, part, resume=False, log=lambda line: None)
    out.mkdir()
    assert "exists already" in refused(capsys, "join", str(part), "--data", str(texts), "--out", str(out))
    shutil.rmtree(out)
    error = refused(capsys, "join", str(part), "--data", str(texts), "--out", str(out))
    assert "expected the parts 1 to 3, each once, found 1" in error
    assert not out.exists()
