from __future__ import annotations

import logging
import resource
import shutil
from pathlib import Path

import pytest
from pyarrow import parquet

from service.models.queries import Features, Query
from service.telemetry import writer
from service.telemetry.records import Record
from service.telemetry.writer import PARTIAL, PredictionFiles, Rotation
from tests.service.blocking import shared_count

PREDICTION = b'{"labels":[{"id":"b","text":"B","score":0.75},{"id":"a","score":0.1}]}'
NEVER = Rotation(group_rows=1 << 30, file_bytes=1 << 40, file_seconds=1e9)


def record(*queries: Query, request_id: str = "abc") -> Record:
    return Record(1_700_000_000_123_456, request_id, "tags", "v1", 2, queries, [PREDICTION] * len(queries), 0.25)


def names(folder: Path) -> list[str]:
    return sorted(path.suffix for path in folder.iterdir())


def test_rows_are_as_they_were_answered(tmp_path: Path) -> None:
    files = PredictionFiles(tmp_path, shared_count(), NEVER)
    files.add([record("one", "two"), record(Features((7, 3), (0.5, -1.0)), request_id="def")])
    files.close()
    (path,) = tmp_path.iterdir()
    rows = parquet.read_table(path).to_pylist()
    assert [(row["request_id"], row["position"]) for row in rows] == [("abc", 0), ("abc", 1), ("def", 0)]
    assert [row["text"] for row in rows] == ["one", "two", None]
    assert [row["feature_indices"] for row in rows] == [None, None, [7, 3]]
    assert rows[2]["feature_values"] == [0.5, -1.0]
    first = rows[0]
    assert first["time"].isoformat() == "2023-11-14T22:13:20.123456+00:00"
    assert (first["model"], first["version"], first["k"], first["seconds"]) == ("tags", "v1", 2, 0.25)
    assert first["labels"] == ["b", "a"]
    assert first["scores"] == pytest.approx([0.75, 0.1])


def test_a_file_that_is_not_whole_has_another_name(tmp_path: Path) -> None:
    files = PredictionFiles(tmp_path, shared_count(), NEVER._replace(group_rows=1))
    files.add([record("one")])
    assert names(tmp_path) == [PARTIAL]
    files.rotate()
    assert names(tmp_path) == [PARTIAL]
    files.close()
    assert names(tmp_path) == [".parquet"]


@pytest.mark.parametrize(
    ("rotation", "count"),
    [(NEVER._replace(group_rows=1, file_bytes=1), 3), (NEVER._replace(file_seconds=0.0), 3), (NEVER, 0)],
    ids=["large", "old", "neither"],
)
def test_a_file_is_closed_when_it_is_large_or_old(tmp_path: Path, rotation: Rotation, count: int) -> None:
    files = PredictionFiles(tmp_path, shared_count(), rotation)
    for _ in range(3):
        files.add([record("one", "two")])
        files.rotate()
    assert names(tmp_path) == [".parquet"] * count


def test_groups_have_the_rows_that_were_chosen(tmp_path: Path) -> None:
    files = PredictionFiles(tmp_path, shared_count(), NEVER._replace(group_rows=4))
    for _ in range(5):
        files.add([record("one", "two")])
    files.close()
    (path,) = tmp_path.iterdir()
    metadata = parquet.read_metadata(path)
    assert [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)] == [4, 4, 2]


def test_time_is_left_while_there_is_something(tmp_path: Path) -> None:
    files = PredictionFiles(tmp_path, shared_count(), NEVER)
    assert files.seconds_left is None
    files.add([record("one")])
    assert files.seconds_left is not None
    assert 0 < files.seconds_left <= NEVER.file_seconds
    files.close()
    assert files.seconds_left is None


def test_what_cannot_be_written_is_counted_and_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, writer.logger.name)
    folder, lost = tmp_path / "log", shared_count()
    folder.mkdir()
    files = PredictionFiles(folder, lost, NEVER._replace(group_rows=2))
    shutil.rmtree(folder)
    for _ in range(3):
        files.add([record("one", "two")])
    assert lost.value == 6
    folder.mkdir()
    files.add([record("one", "two")])
    files.close()
    assert names(folder) == [".parquet"]
    told = [entry.getMessage() for entry in caplog.records]
    assert [line.split(":")[0] for line in told] == [
        "predictions cannot be written and are lost",
        "predictions are written again",
    ]


def test_what_a_full_disk_leaves_is_removed(tmp_path: Path) -> None:
    lost = shared_count()
    files = PredictionFiles(tmp_path, lost, NEVER._replace(group_rows=2))
    files.add([record("one", "two"), record("three")])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        files.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert lost.value == 3
    assert names(tmp_path) == []
    files.add([record("one", "two")])
    files.close()
    assert names(tmp_path) == [".parquet"]


def test_a_value_that_arrow_does_not_take_ends_nothing(tmp_path: Path) -> None:
    lost = shared_count()
    files = PredictionFiles(tmp_path, lost, NEVER._replace(group_rows=1))
    files.add([record("\ud800")])
    assert lost.value == 1
    files.add([record("one")])
    files.close()
    assert names(tmp_path) == [".parquet"]
