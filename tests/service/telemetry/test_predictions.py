from __future__ import annotations

import importlib.util
import logging
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from service.errors import SettingsError
from service.metrics import Metrics
from service.settings import Settings
from service.telemetry import predictions
from service.telemetry.telemetry import Telemetry
from tests.bundles import Spec, write_bundle
from tests.service.serving import TEXT, ask, running, serving

DROPPED = "xmc_prediction_log_dropped_total"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundles") / "mach"
    write_bundle(path, Spec(name="mach"))
    return path


def rows(folder: Path) -> list[dict[str, Any]]:
    assert {path.suffix for path in folder.iterdir()} <= {".parquet"}
    return [row for path in sorted(folder.iterdir()) for row in parquet.read_table(path).to_pylist()]


def test_answers_are_written(bundle: Path, tmp_path: Path) -> None:
    with serving(bundle, prediction_log=tmp_path / "log") as service:
        answer = service.predict({"queries": [TEXT, "images"], "k": 3}, **{"X-Request-Id": "abc"}).json()
        service.predict({"queries": [TEXT], "k": 0})
        service.predict({"queries": ["fonts"], "k": 1})
        service.client.get("/v1/models")
    found = rows(tmp_path / "log")
    assert [(row["text"], row["position"], row["k"]) for row in found] == [
        (TEXT, 0, 3),
        ("images", 1, 3),
        ("fonts", 0, 1),
    ]
    for row, prediction in zip(found, answer["predictions"], strict=False):
        assert row["request_id"] == "abc"
        assert (row["model"], row["version"]) == (answer["model"], answer["version"])
        assert row["labels"] == [label["id"] for label in prediction["labels"]]
        assert row["scores"] == pytest.approx([label["score"] for label in prediction["labels"]])
        assert row["seconds"] > 0


def test_answers_by_the_open_inference_protocol_are_written_too(bundle: Path, tmp_path: Path) -> None:
    text = {"name": "text", "datatype": "BYTES", "shape": [1], "data": [TEXT]}
    with serving(bundle, prediction_log=tmp_path) as service:
        asked = service.client.post("/v2/models/mach/infer", json={"inputs": [text]})
        labels = next(output["data"] for output in asked.json()["outputs"] if output["name"] == "label")
    (row,) = rows(tmp_path)
    assert (row["text"], row["labels"]) == (TEXT, labels)


def test_a_share_of_requests_is_written(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draws = iter([0.4, 0.6, 0.5, 0.49])
    with serving(bundle, prediction_log=tmp_path, prediction_log_sample=0.5) as service:
        monkeypatch.setattr(predictions.random, "random", lambda: next(draws))
        for text in ("one", "two", "three", "four"):
            assert service.predict({"queries": [text]}).status_code == 200
    assert [row["text"] for row in rows(tmp_path)] == ["one", "four"]


def test_what_there_is_no_room_for_is_counted(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictions, "BATCH_REQUESTS", 1)
    monkeypatch.setattr(predictions, "BATCH_SECONDS", 1000.0)
    with serving(bundle, prediction_log=tmp_path) as service:
        for texts in (["one"], ["two", "three"]):
            assert service.predict({"queries": texts}).status_code == 200
        assert service.metrics.registry.get_sample_value(DROPPED) == 2
    assert [row["text"] for row in rows(tmp_path)] == ["one"]


def test_what_the_process_cannot_write_is_counted(bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "log"
    with serving(bundle, prediction_log=folder) as service:
        folder.rmdir()
        assert service.predict({"queries": ["one", "two"]}).status_code == 200
    assert service.metrics.registry.get_sample_value(DROPPED) == 2


def test_a_process_that_dies_harms_nobody(bundle: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with serving(bundle, prediction_log=tmp_path) as service:
        log = next(watch for watch in service.gate._watchers if isinstance(watch, predictions.PredictionLog))
        log._process.kill()
        log._process.wait()
        while not service.metrics.registry.get_sample_value(DROPPED):
            assert service.predict({"queries": ["one"]}).status_code == 200
        assert service.predict({"queries": ["one"]}).status_code == 200
    told = [entry for entry in caplog.records if entry.name == predictions.logger.name]
    assert [entry.levelno for entry in told] == [logging.ERROR]


def test_the_command_writes_what_waits_before_it_ends(bundle: Path, tmp_path: Path) -> None:
    with running("--bundle", bundle, "--drain-seconds", "0", "--prediction-log", tmp_path) as server:
        assert ask(server.port)[0] == 200
        assert server.stop() == 0
    assert [row["text"] for row in rows(tmp_path)] == [TEXT]


@pytest.mark.parametrize("folder", ["file", "file/below"])
def test_a_folder_that_cannot_be_one_is_refused(tmp_path: Path, folder: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match=rf"XMC_PREDICTION_LOG: expected a folder, found .*{folder}"):
        Telemetry(Settings(prediction_log=tmp_path / folder), Metrics())


def test_without_the_extra_the_settings_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(SettingsError, match=r"XMC_PREDICTION_LOG needs the extra predictions"):
        Telemetry(Settings(prediction_log=tmp_path), Metrics())
