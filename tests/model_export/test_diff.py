"""Differences between two bundles, from none at all to another method."""

from __future__ import annotations

from pathlib import Path

from model_export.diff import compare_bundles
from service.bundle.manifest import CalibrationSection, IsotonicMap, RankMap
from service.bundle.reader import read_manifest
from tests.artifacts import Workshop
from tests.bundles import CALIBRATION, Spec, resign, write_bundle, write_manifest


def test_a_bundle_does_not_differ_from_itself(workshop: Workshop) -> None:
    path = workshop.bundle("mach")
    difference = compare_bundles(path, path)
    assert (difference.fields, difference.files, difference.answers) == ([], [], [])
    assert (difference.agreement, difference.queries, difference.k) == (1, 8, 5)


def test_another_precision_is_another_encoder_with_almost_the_same_answers(workshop: Workshop) -> None:
    difference = compare_bundles(workshop.bundle("mach"), workshop.bundle("mach", "int8"))
    assert "precision: fp32 -> int8" in difference.fields
    assert {line.split(": ")[0] for line in difference.fields} <= {
        *("precision", "version", "name"),
        *("parity.max_score_difference", "parity.equal_top_k"),
    }
    (file,) = difference.files
    assert file.startswith("encoder.onnx: ")
    assert " bytes " in file.split(" -> ")[0]
    assert len(difference.answers) == 8  # no score survives 8 bits to the last digit
    assert isinstance(difference.agreement, float)
    assert 0.8 < difference.agreement <= 1


def test_another_method_is_asked_all_the_same(workshop: Workshop) -> None:
    difference = compare_bundles(workshop.bundle("mach"), workshop.bundle("unidec"))
    assert "method.name: mach -> unidec" in difference.fields
    assert "method.buckets: 300 -> none" in difference.fields
    assert any(line.startswith("buckets.npy: ") and line.endswith("-> none") for line in difference.files)
    assert any(line.startswith("labels.search.onnx: none -> ") for line in difference.files)
    assert not any(line.startswith("labels.jsonl") for line in difference.files)
    assert isinstance(difference.agreement, float)
    assert difference.agreement < 1


def test_knots_are_short_enough_to_be_read(tmp_path: Path) -> None:
    knots = CALIBRATION.ranks[1].map
    assert isinstance(knots, IsotonicMap)
    changed = knots.model_copy(update={"scores": (-4.0, 0.0, 1.0, 28 / 3)})
    ranks = (CALIBRATION.ranks[0], RankMap(first_rank=2, map=changed), CALIBRATION.ranks[2])
    for name in ("a", "b"):
        write_bundle(tmp_path / name, Spec(calibrated=True))
    manifest = read_manifest(tmp_path / "b")
    write_manifest(tmp_path / "b", manifest.model_copy(update={"calibration": CalibrationSection(ranks=ranks)}))
    resign(tmp_path / "b")
    assert (
        "calibration.ranks.1.map.scores: -4, 0, 1, 9 -> -4, 0, 1, 9.33333"
        in compare_bundles(tmp_path / "a", tmp_path / "b").fields
    )


def test_a_bundle_for_other_queries_cannot_be_asked(workshop: Workshop) -> None:
    difference = compare_bundles(workshop.bundle("mach"), workshop.bundle("mach-features"))
    assert difference.agreement == "query 0: this model takes features, found a text"
    assert difference.answers == []
    assert "input.kind: text -> features" in difference.fields
