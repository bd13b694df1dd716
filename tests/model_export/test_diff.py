"""Differences between two bundles, from none at all to another method."""

from __future__ import annotations

from model_export.diff import compare_bundles
from tests.artifacts import Workshop


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
    assert any(line.startswith("labels.faiss: none -> ") for line in difference.files)
    assert not any(line.startswith("labels.ids") for line in difference.files)
    assert isinstance(difference.agreement, float)
    assert difference.agreement < 1


def test_a_bundle_for_other_queries_cannot_be_asked(workshop: Workshop) -> None:
    difference = compare_bundles(workshop.bundle("mach"), workshop.bundle("mach-features"))
    assert difference.agreement == "query 0: this model takes features, found a text"
    assert difference.answers == []
    assert "input.kind: text -> features" in difference.fields
