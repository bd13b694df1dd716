"""Texts of the training rows that vote: the bundle carries those of the data that the artifact was trained on."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_export.cli import main
from model_export.errors import UsageError
from model_export.row_texts import read_row_texts
from service.bundle import layout, open_bundle
from service.bundle.manifest import DeclareSection
from tests.artifacts import Workshop
from tests.training.synthetic import load, tiny
from training.artifact import read_artifact
from training.augment.gandalf import GandalfConfig
from training.data.records import open_source
from training.loop import fit
from training.recipes import augmented

Record = dict[str, Any]


def points_of(folder: Path) -> list[Record]:
    return [json.loads(line) for line in gzip.decompress((folder / "trn.json.gz").read_bytes()).splitlines()]


def test_the_bundle_has_the_text_of_a_row_with_these_labels(workshop: Workshop, tmp_path: Path) -> None:
    artifact, data, out = workshop.artifact("declare"), workshop.data("declare"), tmp_path / "bundle"
    assert main(["build", str(artifact), "--out", str(out), "--neighbour-texts", str(data)]) == 0
    bundle, plain = open_bundle(out), open_bundle(workshop.bundle("declare"))
    assert isinstance(bundle.manifest.method, DeclareSection)
    assert bundle.manifest.method.texts
    assert plain.row_texts is None
    assert bundle.manifest.version != plain.manifest.version
    texts = bundle.row_texts
    assert texts is not None
    points = {(point["title"], *sorted(point["target_ind"])) for point in points_of(data)}
    starts, labels = bundle.arrays[layout.DECLARE_VOTES_INDPTR], bundle.arrays[layout.DECLARE_VOTES_INDICES]
    rows = len(starts) - 1
    assert rows > 100
    assert all((texts[row], *labels[starts[row] : starts[row + 1]].tolist()) in points for row in range(rows))


def test_texts_are_those_of_training_points_alone(workshop: Workshop) -> None:
    """Not of points that were held out, though they have the same labels and may come first."""
    data = workshop.data("declare")
    artifact = read_artifact(workshop.artifact("declare"))
    held = {sample for sample in artifact.samples if isinstance(sample, str)}
    titles = [point["title"] for point in points_of(data)]
    assert held <= set(titles)
    once = {title for title in held if titles.count(title) == 1}
    assert once
    assert not once & set(read_row_texts(artifact, open_source(data)))


def test_rows_that_gandalf_made_have_the_texts_of_their_labels(workshop: Workshop, tmp_path: Path) -> None:
    data = workshop.data("declare")
    dataset, run = load(data, tiny("declare").model_copy(update={"augmentation": GandalfConfig()}))
    fit(run, augmented(run, dataset), tmp_path / "artifact", resume=False, log=lambda line: None)
    artifact = read_artifact(tmp_path / "artifact")
    points_G = artifact.tables["votes.points"]
    assert {True, False} == set((points_G < 0).tolist())
    texts, titles = read_row_texts(artifact, open_source(data)), [point["title"] for point in points_of(data)]
    assert artifact.label_texts is not None
    expected = [titles[point] if point >= 0 else artifact.label_texts[-1 - point] for point in points_G.tolist()]
    assert texts == expected


def shortened(points: list[Record]) -> list[Record]:
    return points[: len(points) // 2]


def relabelled(points: list[Record]) -> list[Record]:
    return [point | {"target_ind": [0]} for point in points]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [(shortened, "found no point [0-9]+ in"), (relabelled, "found other labels of point [0-9]+ in")],
)
def test_other_data_is_refused(
    workshop: Workshop, tmp_path: Path, change: Callable[[list[Record]], list[Record]], sentence: str
) -> None:
    other = tmp_path / "other"
    shutil.copytree(workshop.data("declare"), other)
    lines = "".join(json.dumps(point) + "\n" for point in change(points_of(other)))
    (other / "trn.json.gz").write_bytes(gzip.compress(lines.encode()))
    artifact = read_artifact(workshop.artifact("declare"))
    with pytest.raises(UsageError, match=f"--neighbour-texts: expected the data that .* was trained on, {sentence}"):
        read_row_texts(artifact, open_source(other))


@pytest.mark.parametrize(
    ("kind", "data", "sentence"),
    [
        ("mach", "mach", "expected an artifact of declare with texts, found mach with texts"),
        ("declare-features", "declare-features", "expected an artifact of declare with texts, found declare with feat"),
        ("declare", "mach-features", "was trained on, found other labels in"),
        ("declare", "nowhere", "nowhere: expected a data folder, found nothing"),
    ],
)
def test_what_has_no_texts_ends_the_command_with_2(
    workshop: Workshop, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, data: str, sentence: str
) -> None:
    folder = tmp_path / "nowhere" if data == "nowhere" else workshop.data(data)
    build = ["build", str(workshop.artifact(kind)), "--out", str(tmp_path / "bundle")]
    assert main([*build, "--neighbour-texts", str(folder)]) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "bundle").exists()


def test_artifacts_that_are_older_are_refused(workshop: Workshop, tmp_path: Path) -> None:
    shutil.copytree(workshop.artifact("declare"), tmp_path / "artifact")
    (tmp_path / "artifact" / "tables" / "votes.points.npy").unlink()
    artifact = read_artifact(tmp_path / "artifact")
    np.testing.assert_array_equal(artifact.restore().counts_G, artifact.tables["votes.counts"])
    with pytest.raises(UsageError, match="expected an artifact that numbers its points, found an older one"):
        read_row_texts(artifact, open_source(workshop.data("declare")))
