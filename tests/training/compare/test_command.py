"""`xmc-train compare` from its arguments to the folder it leaves, with the real commands in processes of their own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.training.compare.conftest import SMALL, compare, write_peer
from tests.training.synthetic import write_features
from training.cli import DONE, FAILED, WRONG_USE
from training.compare import stages
from training.cost import Cost


def lines(out: Path) -> dict[str, dict[str, Any]]:
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    return {line["name"]: line for line in report["lines"]}


def test_every_model_has_a_line(compared: Path) -> None:
    found = lines(compared)
    assert list(found) == ["declare", "unidec", "perfect", "constant"]
    assert [line["kind"] for line in found.values()] == ["ours", "ours", "peer", "constant"]
    assert found["perfect"]["scores"]["measures"]["P@1"] == 100
    line = found["declare"]
    assert 0 < line["scores"]["measures"]["P@1"] <= 100
    assert line["note"] == ""
    for measured in ("artifact_bytes", "bundle_bytes", "read_seconds", "train_seconds", "cpu_seconds"):
        assert line[measured] > 0
    assert 0 < line["peak_bytes"] < 2**30
    assert line["planned_bytes"] > 0
    assert 0 < line["p50_ms"] <= line["p99_ms"]
    assert line["prepare_p50_ms"] > 0


def test_a_recipe_that_the_data_does_not_suit_is_a_line_that_says_so(compared: Path) -> None:
    line = lines(compared)["unidec"]
    assert line["scores"] is None
    assert line["note"].startswith("features: unidec encodes label texts, and this data set has none")
    assert line["note"] in (compared / "report.md").read_text(encoding="utf-8")


def test_bytes_are_those_of_the_folders(compared: Path) -> None:
    for kind in ("artifact", "bundle"):
        folder = compared / f"{kind}s" / "declare"
        assert lines(compared)["declare"][f"{kind}_bytes"] == sum(
            file.stat().st_size for file in folder.rglob("*") if file.is_file()
        )


def test_the_documents_name_the_command_and_every_model(compared: Path) -> None:
    for name in ("report.md", "report.html"):
        written = (compared / name).read_text(encoding="utf-8")
        assert "xmc-train compare --data " in written
        for model in ("declare", "unidec", "perfect", "constant"):
            assert model in written
    assert (compared / "pareto.png").exists()
    assert (compared / "parts.png").exists()


def test_what_is_done_is_not_done_again(
    compared: Path, features: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    shutil.copytree(compared, out)
    before = lines(out)
    assert compare(features, out, "declare", "--resume") == DONE
    assert capsys.readouterr().out == f"wrote {out}: report.md, report.html, report.json\n"
    after = lines(out)
    assert list(after) == ["declare", "constant"]
    assert after["declare"] == before["declare"]


def test_a_lost_stage_is_done_again(
    compared: Path, features: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    shutil.copytree(compared, out)
    (out / "rankings" / "declare.npy").unlink()
    assert compare(features, out, "declare", "--resume") == DONE
    assert capsys.readouterr().out.splitlines()[0] == "declare: ranking the test split"
    assert lines(out)["declare"] == lines(compared)["declare"]


def test_a_trained_artifact_is_not_trained_again(
    compared: Path, features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the file of its cost beside it or without; then its history tells the seconds."""
    monkeypatch.setattr(stages, "EXPORT", "no_such_package.cli")
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(compared / "artifacts" / "declare", elsewhere)
    assert compare(features, tmp_path / "out", f"{elsewhere},{compared / 'artifacts' / 'declare'}") == DONE
    found = lines(tmp_path / "out")
    assert not (tmp_path / "out" / "artifacts").exists()
    assert found["elsewhere"]["scores"] == found["declare"]["scores"] == lines(compared)["declare"]["scores"]
    assert found["elsewhere"]["peak_bytes"] is None
    history = [json.loads(line) for line in (elsewhere / "history.jsonl").read_text().splitlines()]
    expected = sum(line["train_seconds"] + line["evaluate_seconds"] for line in history)
    assert found["elsewhere"]["train_seconds"] == pytest.approx(expected)
    cost = Cost.model_validate_json((compared / "artifacts" / "declare.cost.json").read_text())
    assert found["declare"]["train_seconds"] == cost.train_seconds


def test_an_artifact_of_other_labels_is_a_line(compared: Path, texts: Path, tmp_path: Path) -> None:
    artifact = compared / "artifacts" / "declare"
    assert compare(texts, tmp_path / "out", str(artifact)) == DONE
    line = lines(tmp_path / "out")["declare"]
    assert line["scores"] is None
    assert "expected" in line["note"]
    assert line["note"].startswith("texts: ")


def test_options_reach_every_recipe_and_a_folder_has_one_set_of_them(
    compared: Path, features: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = json.loads((compared / "artifacts" / "declare" / "config.json").read_text())
    assert config["run"]["encoder"]["widths"] == [8]
    assert compare(features, compared, "mach", "--resume", options=["training.epochs=2"]) == WRONG_USE
    assert "was begun with other --data or --set" in capsys.readouterr().err
    assert compare(features, compared, "mach") == WRONG_USE
    assert "exists already; give another --out, or go on with it by --resume" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("recipes", "options", "expected"),
    [
        ("parabel", SMALL, "--recipes: expected a recipe (mach, "),
        ("mach,", SMALL, "or the folder of an artifact, found ''"),
        ("mach,mach", SMALL, "expected every name once, found mach more than once"),
        ("mach,declare", ["method.rank=3"], "rank: Extra inputs are not permitted"),
        ("mach", ["nonsense"], "--set: expected KEY=VALUE, found 'nonsense'"),
    ],
)
def test_wrong_entries_are_refused_before_anything_is_made(
    features: Path,
    tmp_path: Path,
    recipes: str,
    options: Sequence[str],
    expected: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert compare(features, tmp_path / "out", recipes, options=options) == WRONG_USE
    assert expected in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_no_artifact_is_refused(
    features: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare(features, tmp_path / "out", str(features)) == WRONG_USE
    assert "config.json: expected this file of a training artifact" in capsys.readouterr().err


def test_a_peer_of_other_test_rows_is_refused(
    features: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_features(tmp_path / "other", seed=1)
    peer = write_peer(tmp_path / "peers", other)
    assert compare(features, tmp_path / "out", "mach", "--peers", str(peer)) == WRONG_USE
    assert "perfect.json: expected a ranking of the test split with labels" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"more": 1}, "more: Extra inputs are not permitted"),
        ({"p50_ms": "fast"}, "p50_ms: Input should be a valid number"),
        ({"ranking": "none.npy"}, "none.npy: expected a .npy file"),
    ],
)
def test_a_malformed_peer_is_refused(
    features: Path, tmp_path: Path, changes: dict[str, Any], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    peer = write_peer(tmp_path / "peers", features, **changes)
    assert compare(features, tmp_path / "out", "mach", "--peers", str(peer)) == WRONG_USE
    assert expected in capsys.readouterr().err


def test_a_missing_peer_is_refused(features: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare(features, tmp_path / "out", "mach", "--peers", str(tmp_path / "none.json")) == WRONG_USE
    assert "none.json cannot be read" in capsys.readouterr().err


def test_a_run_that_diverges_is_a_line_and_a_failure(
    features: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The report is written all the same."""
    hot = ["training.epochs=3", "encoder.widths=[8]", "training.learning_rate=1e30", "training.warmup=0"]
    assert compare(features, tmp_path / "out", "declare-paper", options=hot) == FAILED
    assert "declare-paper failed" in capsys.readouterr().err
    assert "lower training.learning_rate" in lines(tmp_path / "out")["declare-paper"]["note"]
