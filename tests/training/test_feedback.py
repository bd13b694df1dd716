"""A prediction log against feedback: every measure as `metrics` has it, and every bad input a sentence."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from tests.training.synthetic import load, tiny
from training.artifact import Artifact, read_artifact
from training.cli import DONE, WRONG_USE, main
from training.feedback import read_feedback, score_log
from training.loop import fit
from training.metrics import inverse_propensities

BEGIN = datetime(2026, 11, 26, tzinfo=UTC)
MODEL = "tags:v1"


def logged(request_id: str, labels: Sequence[str], *, k: int = 3, position: int = 0, **others: Any) -> dict[str, Any]:
    """A row of a log."""
    row = {"time": BEGIN, "request_id": request_id, "position": position, "model": "tags", "version": "v1"}
    return row | {"k": k, "labels": list(labels)} | others


def write_log(folder: Path, *rows: Mapping[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    parquet.write_table(
        pa.Table.from_pylist([dict(row) for row in rows]), folder / f"{len(list(folder.iterdir()))}.parquet"
    )
    return folder


def write_feedback(file: Path, *rows: Mapping[str, Any]) -> Path:
    if file.suffix == ".parquet":
        parquet.write_table(pa.Table.from_pylist([dict(row) for row in rows]), file)
    else:
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.fixture(scope="module")
def artifact(texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    out = tmp_path_factory.mktemp("artifact") / "mach"
    dataset, run = load(texts, tiny("mach", epochs=1))
    fit(run, dataset, out, resume=False, log=lambda line: None)
    return read_artifact(out)


def test_a_hand_computed_example(tmp_path: Path) -> None:
    folder = write_log(
        tmp_path / "log",
        logged("one", ["a", "b", "c"]),
        logged("two", ["a", "d", "e"]),
        logged("three", ["a", "b", "c"]),
    )
    feedback = write_feedback(
        tmp_path / "f.jsonl",
        {"request_id": "one", "labels": ["a", "c"]},
        {"request_id": "two", "labels": ["z", "d", "y", "x"]},
    )
    found = score_log(folder, feedback, [1, 3])[MODEL]
    assert (found["predictions"], found["with_feedback"]) == (3, 2)
    assert found["P@1"] == pytest.approx(100 * 1 / 2)
    assert found["P@3"] == pytest.approx(100 * (2 + 1) / 6)
    assert found["R@3"] == pytest.approx(100 * (1 + 1 / 4) / 2)
    assert found["coverage@3"] == pytest.approx(100 * 3 / 6)
    assert not any(name.startswith("PSP") for name in found)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("f.csv", 'request_id,position,labels\none,1,"a,b"\n'),
        ("f.csv", 'request_id,labels,position\none,a,1\none,"[""b""]",1\n'),
        ("f.jsonl", '{"request_id": "one", "position": 1, "labels": ["a", "b", "a"]}\n'),
        (
            "f.jsonl",
            '{"request_id": "one", "position": 1, "labels": "a"}\n'
            '{"request_id": "one", "position": 1, "labels": "b"}\n',
        ),
    ],
)
def test_feedback_may_be_written_in_several_ways(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert read_feedback(tmp_path / name) == {("one", 1): ["a", "b"]}


def test_feedback_may_be_parquet_and_without_positions(tmp_path: Path) -> None:
    file = write_feedback(
        tmp_path / "f.parquet", {"request_id": "one", "labels": ["a"]}, {"request_id": "two", "labels": []}
    )
    assert read_feedback(file) == {("one", 0): ["a"], ("two", 0): []}
    (tmp_path / "f.csv").write_text("request_id,labels\none,a\n")
    assert read_feedback(tmp_path / "f.csv") == {("one", 0): ["a"]}


def test_queries_of_one_request_are_told_apart(tmp_path: Path) -> None:
    folder = write_log(tmp_path / "log", logged("one", ["a"]), logged("one", ["b"], position=1))
    feedback = write_feedback(tmp_path / "f.jsonl", {"request_id": "one", "position": 1, "labels": ["b"]})
    found = score_log(folder, feedback, [1])[MODEL]
    assert (found["with_feedback"], found["P@1"]) == (1, 100)


def test_each_version_is_measured_by_itself_over_all_files(tmp_path: Path) -> None:
    folder = write_log(tmp_path / "log", logged("one", ["a"]))
    write_log(folder, logged("two", ["b"], version="v2"), logged("three", ["b"], version="v3"))
    (folder / "later.parquet.part").write_text("not whole yet")
    feedback = write_feedback(
        tmp_path / "f.jsonl", {"request_id": "one", "labels": ["a"]}, {"request_id": "two", "labels": ["a"]}
    )
    found = score_log(folder, feedback, [1])
    assert {identity: one.get("P@1") for identity, one in found.items()} == {MODEL: 100, "tags:v2": 0, "tags:v3": None}


def test_the_last_answer_to_a_request_counts(tmp_path: Path) -> None:
    folder = write_log(
        tmp_path / "log", logged("one", ["a"], time=BEGIN + timedelta(seconds=1)), logged("one", ["b"], time=BEGIN)
    )
    feedback = write_feedback(tmp_path / "f.jsonl", {"request_id": "one", "labels": ["a"]})
    found = score_log(folder, feedback, [1])[MODEL]
    assert (found["predictions"], found["with_feedback"], found["P@1"]) == (2, 1, 100)


def test_a_rank_is_measured_where_it_was_asked_for(tmp_path: Path) -> None:
    folder = write_log(tmp_path / "log", logged("one", ["a"], k=1), logged("two", ["b", "a"], k=2))
    feedback = write_feedback(
        tmp_path / "f.jsonl", {"request_id": "one", "labels": ["a"]}, {"request_id": "two", "labels": ["a"]}
    )
    found = score_log(folder, feedback, [1, 2, 3])[MODEL]
    assert (found["P@1"], found["P@2"]) == (50, 50)
    assert "P@3" not in found


def test_propensities_are_those_of_the_artifact(tmp_path: Path, artifact: Artifact) -> None:
    known, other = artifact.label_ids[:2]
    folder = write_log(tmp_path / "log", logged("one", [known, "new"], k=2))
    feedback = write_feedback(tmp_path / "f.jsonl", {"request_id": "one", "labels": [known, other, "new"]})
    found = score_log(folder, feedback, [1], artifact)[MODEL]
    card, counts = artifact.config.card, [*artifact.label_counts[:2], 0]
    gains = [
        float(inverse_propensities(count, artifact.config.counted_rows, card.propensity_a, card.propensity_b))
        for count in counts
    ]
    assert found["PSP@1"] == pytest.approx(100 * gains[0] / max(gains))


LABELS = st.lists(st.sampled_from("abcdef"), max_size=5, unique=True)


@given(st.lists(st.tuples(LABELS, LABELS), min_size=1, max_size=6))
def test_precision_and_recall_are_their_definitions(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[list[str], list[str]]]
) -> None:
    folder = tmp_path_factory.mktemp("log")
    log = write_log(folder / "log", *(logged(str(row), ranked, k=5) for row, (ranked, _) in enumerate(pairs)))
    feedback = write_feedback(
        folder / "f.jsonl", *({"request_id": row, "labels": true} for row, (_, true) in enumerate(pairs))
    )
    found = score_log(log, feedback, [2, 5])[MODEL]
    for k in (2, 5):
        hits = [len(set(ranked[:k]) & set(true)) for ranked, true in pairs]
        recalls = [hit / len(true) if true else 1.0 for hit, (_, true) in zip(hits, pairs, strict=True)]
        assert found[f"P@{k}"] == pytest.approx(100 * sum(hits) / (k * len(pairs)))
        assert found[f"R@{k}"] == pytest.approx(100 * sum(recalls) / len(pairs))


def test_the_command_prints_and_writes_the_measures(
    tmp_path: Path, artifact: Artifact, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_log(tmp_path / "log", logged("one", ["a", "b"], k=2))
    feedback = write_feedback(tmp_path / "f.jsonl", {"request_id": "one", "labels": ["b"]})
    options = [
        "--predictions",
        str(folder),
        "--feedback",
        str(feedback),
        "--k",
        "1,2",
        "--json",
        str(tmp_path / "m.json"),
    ]
    assert main(["evaluate", *options]) == DONE
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "tags:v1: 1 predictions, 1 with feedback"
    measures = json.loads((tmp_path / "m.json").read_text())[MODEL]
    assert dict(line.split() for line in printed[1:]) == {
        name: f"{value:.2f}" for name, value in measures.items() if "@" in name
    }
    assert {name for name in measures if name.startswith("P@")} == {"P@1", "P@2"}
    assert main(["evaluate", str(artifact.path), *options]) == DONE
    assert "PSP@1" in json.loads((tmp_path / "m.json").read_text())[MODEL]


GOOD = {"request_id": "one", "labels": ["a"]}


@pytest.mark.parametrize(
    ("rows", "feedback", "sentence"),
    [
        ([], GOOD, "expected a folder with files of a prediction log (*.parquet), found none"),
        ([logged("one", ["a"], k=None)], GOOD, "expected a prediction: time, k and labels"),
        ([{"request_id": "one"}], GOOD, "expected one column 'time'"),
        ([logged("one", ["a"])], {"labels": ["a"]}, "request_id"),
        (
            [logged("one", ["a"])],
            GOOD | {"position": -1},
            "expected the place of a query, from 0, in column 'position'",
        ),
        ([logged("one", ["a"])], GOOD | {"labels": 1.5}, "expected labels in column 'labels'"),
        ([logged("two", ["a"])], GOOD, "expected feedback on predictions in"),
    ],
)
def test_bad_input_is_a_sentence(
    tmp_path: Path,
    rows: list[dict[str, Any]],
    feedback: dict[str, Any],
    sentence: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "log"
    if rows:
        write_log(folder, *rows)
    file = write_feedback(tmp_path / "f.jsonl", feedback)
    assert main(["evaluate", "--predictions", str(folder), "--feedback", str(file)]) == WRONG_USE
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "expected ARTIFACT and --data DIR, or --predictions FOLDER and --feedback FILE"),
        (["a"], "expected ARTIFACT and --data DIR"),
        (["--predictions", "x"], "expected --predictions and --feedback together"),
        (["--feedback", "x"], "expected --predictions and --feedback together"),
        (["--predictions", "x", "--feedback", "y", "--data", "d"], "--data: expected without --predictions"),
        (["--predictions", "x", "--feedback", "y", "--split", "dev"], "--split: expected without --predictions"),
    ],
)
def test_wrong_use_is_a_sentence(arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", *arguments]) == WRONG_USE
    assert sentence in capsys.readouterr().err
