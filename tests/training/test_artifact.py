"""The artifact: what was written comes back, and whatever is missing or damaged is refused with a sentence."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.training.synthetic import load, tiny, write_texts
from training.artifact import ArtifactError, read_artifact
from training.data.batches import Bags
from training.data.dataset import Dataset
from training.loop import fit
from training.methods.base import Shape
from training.recipes import RunConfig

METHODS = ("mach", "declare", "unidec", "ova")


def train(folder: Path, out: Path, method: str) -> tuple[Dataset, RunConfig]:
    dataset, run = load(folder, tiny(method, epochs=1))
    fit(run, dataset, out, resume=False, log=lambda line: None)
    return dataset, run


@pytest.fixture(scope="module")
def trained(texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact of MACH on texts; tests that damage it take a copy."""
    out = tmp_path_factory.mktemp("artifact") / "mach"
    train(texts, out, "mach")
    return out


@pytest.fixture
def copy(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "mach"))


@pytest.mark.parametrize("method", METHODS)
def test_what_was_written_comes_back(texts: Path, tmp_path: Path, method: str) -> None:
    dataset, run = train(texts, tmp_path / "out", method)
    artifact = read_artifact(tmp_path / "out")
    assert artifact.config.run == run
    assert artifact.config.shape == Shape.of(dataset)
    assert artifact.config.card == dataset.card
    assert set(artifact.config.libraries) == {"xmcserve", "torch", "tokenizers", "numpy", "scipy"}
    assert (artifact.label_ids, artifact.label_texts) == (dataset.label_ids, dataset.label_texts)
    np.testing.assert_array_equal(artifact.label_counts, dataset.label_counts)
    assert artifact.samples == dataset.samples
    assert artifact.tokenizer is not None
    assert dataset.tokenizer is not None
    assert artifact.tokenizer.get_vocab() == dataset.tokenizer.get_vocab()
    model = artifact.restore()
    assert not model.training
    bags = Bags.from_csr(dataset.validation.inputs)
    with torch.no_grad():
        scores = model.score(bags)
        assert scores.shape == (len(dataset.validation), 8)
        assert torch.equal(scores, read_artifact(tmp_path / "out").restore().score(bags))


def test_an_artifact_without_a_calibration_is_read(copy: Path) -> None:
    """As they were written before there were any."""
    assert read_artifact(copy).calibration is not None
    (copy / "calibration.json").unlink()
    assert read_artifact(copy).calibration is None


def test_features_have_no_tokenizer_and_no_texts(features: Path, tmp_path: Path) -> None:
    dataset, _ = train(features, tmp_path / "out", "declare")
    artifact = read_artifact(tmp_path / "out")
    assert artifact.tokenizer is None
    assert artifact.label_texts is None
    assert not (tmp_path / "out" / "tokenizer.json").exists()
    assert artifact.samples == dataset.samples
    assert set(artifact.samples[0]) == {"indices", "values"}


def test_labels_may_hold_any_text(tmp_path: Path) -> None:
    """Line separators, quotes, other scripts: one record stays one line, and every label keeps its row."""
    folder = write_texts(tmp_path / "data")
    titles = ["a\u2028b", 'quote " and \\', "日本語", "tab\tnew\nline", "\x85", "ﬁ", "\x1c", "plain"]
    records = [{"uid": f"l{row}\u2029", "title": title} for row, title in enumerate(titles)]
    (folder / "lbl.json").write_text("".join(json.dumps(record) + "\n" for record in records))
    dataset, _ = train(folder, tmp_path / "out", "mach")
    artifact = read_artifact(tmp_path / "out")
    assert artifact.label_ids == dataset.label_ids == [record["uid"] for record in records]
    assert artifact.label_texts == dataset.label_texts


def test_the_configuration_holds_short_names_and_no_class_paths(trained: Path) -> None:
    text = (trained / "config.json").read_text()
    config = json.loads(text)
    assert (config["schema_version"], config["run"]["method"]["name"]) == (1, "mach")
    assert not re.search(r"training\.|torch\.nn|<class", text)


def edit_json(name: str, change: Callable[[Any], None]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        value = json.loads((folder / name).read_text())
        change(value)
        (folder / name).write_text(json.dumps(value))

    return edit


def cut_labels(folder: Path) -> None:
    lines = (folder / "labels.jsonl").read_text().splitlines(keepends=True)
    (folder / "labels.jsonl").write_text("".join(lines[:-1]))


def no_key(folder: Path) -> None:
    (folder / "labels.jsonl").write_text('{"text": "no id", "count": 1}\n' * 8)


def truncate(name: str) -> Callable[[Path], None]:
    def cut(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: len(data) // 2])

    return cut


def overwrite(name: str, data: bytes) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / name).write_bytes(data)

    return write


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def other_table(folder: Path) -> None:
    np.save(folder / "tables" / "buckets.npy", np.zeros((2, 8), np.int32))


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "no config": (remove("config.json"), r"config\.json"),
    "no weights": (remove("model.safetensors"), r"model\.safetensors"),
    "no tokenizer": (remove("tokenizer.json"), r"tokenizer\.json"),
    "no labels": (remove("labels.jsonl"), r"labels\.jsonl"),
    "no samples": (remove("samples.jsonl"), r"samples\.jsonl"),
    "no table": (remove("tables/buckets.npy"), "buckets"),
    "config is no JSON": (overwrite("config.json", b"{"), r"config\.json.*expected a JSON object"),
    "config is a list": (overwrite("config.json", b"[]"), r"config\.json.*expected a JSON object"),
    "config is no UTF-8": (overwrite("config.json", b"\xff\xfe"), r"config\.json"),
    "other schema version": (
        edit_json("config.json", lambda config: config.update(schema_version=2)),
        r"config\.json: expected schema version 1, found 2",
    ),
    "no schema version": (
        edit_json("config.json", lambda config: config.pop("schema_version")),
        r"config\.json: expected schema version 1, found None",
    ),
    "unknown key": (edit_json("config.json", lambda config: config.update(new=1)), r"config\.json.*new"),
    "unknown key in the run": (
        edit_json("config.json", lambda config: config["run"]["training"].update(new=1)),
        r"config\.json.*training\.new",
    ),
    "unknown key in the shape": (
        edit_json("config.json", lambda config: config["shape"].update(new=1)),
        r"config\.json.*shape\.new",
    ),
    "unknown key in the card": (
        edit_json("config.json", lambda config: config["card"].update(new=1)),
        r"config\.json.*card\.new",
    ),
    "unknown method": (
        edit_json("config.json", lambda config: config["run"]["method"].update(name="parabel")),
        r"config\.json.*parabel",
    ),
    "missing key": (edit_json("config.json", lambda config: config.pop("card")), r"config\.json.*card"),
    "truncated weights": (truncate("model.safetensors"), r"model\.safetensors"),
    "truncated tokenizer": (truncate("tokenizer.json"), r"tokenizer\.json"),
    "truncated labels": (truncate("labels.jsonl"), r"labels\.jsonl"),
    "fewer labels": (cut_labels, r"labels\.jsonl: expected 8 labels, found 7"),
    "labels without ids": (no_key, r"labels\.jsonl"),
    "truncated samples": (truncate("samples.jsonl"), r"samples\.jsonl"),
    "truncated calibration": (truncate("calibration.json"), r"calibration\.json"),
    "unknown key in the calibration": (
        edit_json("calibration.json", lambda calibration: calibration.update(new=1)),
        r"calibration\.json: new",
    ),
    "calibration without rank 1": (
        edit_json("calibration.json", lambda calibration: calibration["ranks"].pop(0)),
        r"calibration\.json: .*expected first ranks that rise from 1, found \[2,",
    ),
    "truncated table": (truncate("tables/buckets.npy"), r"buckets"),
    "a table that is a pickle": (overwrite("tables/buckets.npy", b"\x80\x04N."), r"buckets"),
    "table of another shape": (other_table, r"buckets"),
    "weights of another size": (
        edit_json("config.json", lambda config: config["run"]["encoder"].update(widths=[13])),
        "do not fit config.json",
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_refused_with_one_sentence(copy: Path, name: str) -> None:
    damage, expected = DAMAGES[name]
    damage(copy)
    with pytest.raises(ArtifactError, match=rf"(?s){re.escape(str(copy))}.*{expected}") as refusal:
        read_artifact(copy).restore()
    sentence = str(refusal.value)
    assert "None" not in sentence.replace("found None", "")
    assert sentence.count("\n") <= 3
    assert "pydantic" not in sentence


def test_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="expected a training artifact"):
        read_artifact(tmp_path / "nowhere")
