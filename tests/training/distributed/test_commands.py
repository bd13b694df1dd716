"""`xmc-train fit --ray` as users call it."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.training.synthetic import load
from tests.training.test_resume import assert_same_artifact
from training.cli import DONE, WRONG_USE, main
from training.loop import fit as fit_one
from training.overrides import configured
from training.parts import fit, join, part_of

ROOT = Path(__file__).parents[3]
RECIPE = "mach-independent"
OPTIONS = (
    "training.epochs=4",
    "training.batch_size=16",
    "encoder.widths=[8]",
    "vocabulary.subwords=60",
    "method.repetitions=2",
    "method.buckets=8",
)
TWICE = """
import sys
from training.cli import main
for more in ([], ["--ray", "local"]):
    assert main([*sys.argv[1:], *more]) == 0
    print("ray" in sys.modules)
"""


def command(data: Path, out: Path, recipe: str = RECIPE) -> list[str]:
    options = [option for option in OPTIONS if recipe == RECIPE or not option.startswith("method.")]
    return ["fit", "--data", str(data), "--recipe", recipe, "--out", str(out), "--set", *options]


def refused(capsys: pytest.CaptureFixture[str], arguments: list[str], *more: str) -> str:
    assert main([*arguments, *more]) == WRONG_USE
    return capsys.readouterr().err


@pytest.mark.usefixtures("ray_home")
def test_a_run_that_was_stopped_is_finished_on_this_machine(
    texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One repetition is done; `local` starts a Ray of its own for the other."""
    dataset, run = load(texts, configured(RECIPE, None, OPTIONS))

    def stop(line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(run, dataset, tmp_path / "out", resume=False, log=stop)
    parts = tmp_path / "out.part" / "parts"
    for folder, repetition in ((parts / "000", 0), (tmp_path / "second", 1)):
        folder.parent.mkdir(exist_ok=True)
        fit_one(part_of(run, repetition), dataset, folder, resume=False, log=print)
    join([parts / "000", tmp_path / "second"], dataset, tmp_path / "whole", log=print)
    arguments = [*command(texts, tmp_path / "out"), "--ray", "local"]
    assert "out.part holds an unfinished run" in refused(capsys, arguments)
    # In a process of its own, as Ray keeps things of a cluster that it started.
    program = [sys.executable, "-m", "training.cli", *arguments, "--resume"]
    printed = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "1 of 2 repetitions are done; by Ray (local)" in printed
    assert "repetition 2/2  epoch   4/4" in printed
    assert "repetition 1/2" not in printed
    metrics = json.loads((tmp_path / "whole" / "metrics.json").read_text())
    assert f"joined 2 parts (validation P@1 {metrics['P@1']:.2f})" in printed
    assert_same_artifact(tmp_path / "whole", tmp_path / "out")


@pytest.mark.parametrize(
    ("recipe", "more", "moment"),
    [
        (RECIPE, (), r".*, Ray's connection 48"),
        ("declare-reranked", (), "multiplying rows: libraries 160, .*"),
        ("unidec", ("--workers", "3"), r"training: .*, what others have \d+, Ray's connection 48"),
    ],
)
def test_a_dry_run_says_what_a_worker_needs_and_starts_nothing(
    texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], recipe: str, more: tuple[str, ...], moment: str
) -> None:
    arguments = [*command(texts, tmp_path / "out", recipe), "--dry-run"]
    assert main([*arguments, "--ray", "192.0.2.1:6379", *more]) == DONE
    lines = capsys.readouterr().out.splitlines()
    (line,) = (line for line in lines if line.startswith("workers"))
    assert line.startswith("workers    each a processor and, beside Ray's own store, about ")
    assert re.fullmatch(f".*MiB while {moment}", line)
    assert main(arguments) == DONE
    assert "workers" not in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_ray_is_imported_only_when_it_was_asked_for(texts: Path, tmp_path: Path) -> None:
    program = [sys.executable, "-c", TWICE, *command(texts, tmp_path / "out"), "--dry-run"]
    run = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=True)
    assert [line for line in run.stdout.splitlines() if line in ("True", "False")] == ["False", "True"]


@pytest.mark.parametrize(
    ("recipe", "more", "expected"),
    [
        (
            "mach",
            ("--ray", "local"),
            "--ray: expected MACH whose repetitions need nothing of each other (--recipe mach-independent, or "
            "method.networks=independent), DECLARE, UniDEC, DEPSL or one-vs-all, found mach",
        ),
        ("ova", ("--ray", "local"), "--ray: expected --workers W, as many as are to train this model together"),
        ("ova", ("--workers", "2"), "--workers: expected with --ray, whose workers they are"),
        ("ova", ("--ray", "local", "--workers", "0"), "--workers: expected at least 1, found 0"),
        ("ova", ("--ray", "local", "--workers", "9"), "--workers: expected at most 8, so that each has a training row"),
        *(
            (
                recipe,
                ("--ray", "local", "--workers", "2"),
                "--workers: expected one model of UniDEC, DEPSL or one-vs-all",
            )
            for recipe in ("mach", "mach-independent", "declare")
        ),
    ],
)
def test_what_cannot_be_divided_so_is_refused(
    texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], recipe: str, more: tuple[str, ...], expected: str
) -> None:
    assert refused(capsys, command(texts, tmp_path / "out", recipe), *more).startswith(f"xmc-train: {expected}")
    assert list(tmp_path.iterdir()) == []


def test_workers_share_no_scale_of_the_loss(
    texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a machine that has a GPU, and so could train in fp16 alone."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    arguments = [
        *command(texts, tmp_path / "out", "depsl"),
        "training.precision=fp16",
        "--ray",
        "local",
        "--workers",
        "2",
    ]
    expected = "training.precision fp16: expected bf16 or fp32 with --workers"
    assert refused(capsys, arguments).startswith(f"xmc-train: {expected}")


@pytest.mark.parametrize(
    "option", [("--part", "1/2"), ("--processes", "2"), ("--json", "cost.json")], ids=lambda option: option[0]
)
def test_options_of_one_machine_do_not_go_with_it(
    texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: tuple[str, str]
) -> None:
    error = refused(capsys, command(texts, tmp_path / "out"), "--ray", "local", *option)
    assert error.startswith(f"xmc-train: {option[0]}: expected without --ray")


def test_a_cluster_that_is_not_there_is_said_at_once_and_leaves_nothing(
    texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        error = refused(capsys, command(texts, tmp_path / "out"), "--ray", address)
    assert f"--ray: expected a Ray cluster at {address}, found none: " in error
    error = refused(capsys, command(texts, tmp_path / "out"), "--ray", "here:or-there")
    assert "--ray: expected a Ray cluster at here:or-there, found none: " in error
    error = refused(capsys, command(texts, tmp_path / "out"), "--ray", "nonsense")
    assert "--ray: expected a Ray cluster at nonsense, found none: " in error
    error = refused(capsys, command(texts, tmp_path / "out"), "--ray", "ray://127.0.0.1:10001")
    assert "--ray: expected local, auto or the HOST:PORT of a cluster, found ray://127.0.0.1:10001" in error
    assert list(tmp_path.iterdir()) == []


def test_without_the_extra_it_is_named(
    texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("training.distributed.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ray", None)
    error = refused(capsys, command(texts, tmp_path / "out"), "--ray", "local")
    assert error.startswith("xmc-train: --ray: expected the extra xmcserve[ray], found ")
