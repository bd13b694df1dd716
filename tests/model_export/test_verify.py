"""Verification: a bundle is held to its golden answers, and to its artifact where one is given."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from model_export.errors import ExportError
from model_export.verify import Comparison, require_equal, verify_bundle
from service.bundle import layout
from service.bundle.manifest import Parity
from service.bundle.reader import read_manifest
from service.errors import BundleError
from tests.artifacts import KINDS, Workshop
from tests.bundles import write_manifest
from training.artifact import LABELS, WEIGHTS, read_artifact


@pytest.mark.parametrize("kind", KINDS)
def test_a_bundle_passes_alone_and_beside_its_artifact(workshop: Workshop, kind: str) -> None:
    path = workshop.bundle(kind)
    assert verify_bundle(path).comparison is None
    verified = verify_bundle(path, read_artifact(workshop.artifact(kind)))
    assert verified.comparison is not None
    assert verified.comparison.parity == verified.manifest.parity
    assert verified.comparison.equal_scores
    assert verified.comparison.largest_score > verified.comparison.parity.max_score_difference


@pytest.mark.parametrize("damage", ["truncated", "edited", "missing", "renamed", "added"])
def test_a_damaged_bundle_is_refused(workshop: Workshop, tmp_path: Path, damage: str) -> None:
    path = tmp_path / "bundle"
    shutil.copytree(workshop.bundle("declare-features"), path)
    file = path / layout.ENCODER
    raw = file.read_bytes()
    match damage:
        case "truncated":
            file.write_bytes(raw[:-1])
        case "edited":
            file.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
        case "missing":
            file.unlink()
        case "renamed":
            file.rename(path / "encoder.onnx.bak")
        case "added":
            (path / "notes.txt").write_text("mine")
    with pytest.raises(BundleError, match=r"bundle .*: .*expected .*, found"):
        verify_bundle(path)


def test_answers_that_changed_since_the_export_are_refused(workshop: Workshop, tmp_path: Path) -> None:
    path = tmp_path / "bundle"
    shutil.copytree(workshop.bundle("mach"), path)
    manifest = read_manifest(path)
    first = manifest.golden[0].labels[0]
    labels = (first.model_copy(update={"score": first.score * 2}), *manifest.golden[0].labels[1:])
    golden = (manifest.golden[0].model_copy(update={"labels": labels}), *manifest.golden[1:])
    write_manifest(path, manifest.model_copy(update={"golden": golden}))
    with pytest.raises(BundleError, match=r"golden query 0 '.*': expected .* at rank 1, found"):
        verify_bundle(path)


@pytest.mark.parametrize(
    ("kind", "other", "sentence"),
    [
        ("mach", "declare", "expected a mach artifact, found declare"),
        ("mach", "mach-features", "expected an artifact for text, found one for features"),
    ],
)
def test_another_artifact_is_not_compared(workshop: Workshop, kind: str, other: str, sentence: str) -> None:
    with pytest.raises(ExportError, match=sentence):
        verify_bundle(workshop.bundle(kind), read_artifact(workshop.artifact(other)))


def test_an_artifact_with_other_labels_is_not_compared(workshop: Workshop, tmp_path: Path) -> None:
    shutil.copytree(workshop.artifact("declare"), tmp_path / "artifact")
    labels = tmp_path / "artifact" / LABELS
    first, rest = labels.read_text(encoding="utf-8").split("\n", 1)
    labels.write_text(first.replace('"id": "', '"id": "new-') + "\n" + rest, encoding="utf-8")
    with pytest.raises(ExportError, match=r"expected the [\d,]+ labels of declare, found other ones"):
        verify_bundle(workshop.bundle("declare"), read_artifact(tmp_path / "artifact"))


@pytest.mark.parametrize("kind", ["mach", "unidec", "declare-features"])
def test_a_model_that_was_trained_on_is_told_apart(workshop: Workshop, tmp_path: Path, kind: str) -> None:
    """Weights a hundredth larger: the bundle is no longer that artifact's."""
    shutil.copytree(workshop.artifact(kind), tmp_path / "artifact")
    weights = load_file(tmp_path / "artifact" / WEIGHTS)
    generator = np.random.default_rng(0)
    changed = {name: weight * float(generator.uniform(1, 1.02)) for name, weight in weights.items()}
    save_file(changed, tmp_path / "artifact" / WEIGHTS)
    with pytest.raises(ExportError, match=r"expected scores within 0\.0001 of the trained model's"):
        verify_bundle(workshop.bundle(kind), read_artifact(tmp_path / "artifact"))


def comparison(*, equal_scores: bool, equal_top_k: float, difference: float = 0.5) -> Comparison:
    parity = Parity(queries=64, k=5, max_score_difference=difference, equal_top_k=equal_top_k)
    return Comparison(parity, equal_scores=equal_scores, largest_score=3.0, undecided=0)


def test_other_labels_are_a_fault_of_exact_search_alone(workshop: Workshop) -> None:
    missed = comparison(equal_scores=True, equal_top_k=0.75, difference=1e-5)
    require_equal(missed, read_manifest(workshop.bundle("unidec", index="hnsw")))
    require_equal(missed, read_manifest(workshop.bundle("unidec", "int8")))
    with pytest.raises(ExportError, match="unidec: expected the trained model's best 5 labels for all 64 samples"):
        require_equal(missed, read_manifest(workshop.bundle("unidec")))


def test_other_scores_are_a_fault_of_full_precision_and_exact_search(workshop: Workshop) -> None:
    shifted = comparison(equal_scores=False, equal_top_k=1)
    require_equal(shifted, read_manifest(workshop.bundle("unidec", "int8")))
    hnsw = read_manifest(workshop.bundle("unidec", index="hnsw"))
    require_equal(comparison(equal_scores=False, equal_top_k=1, difference=0.029), hnsw)
    with pytest.raises(ExportError, match=r"within 0\.03 of .* as its index has 8-bit codes, found .* 0\.031"):
        require_equal(comparison(equal_scores=False, equal_top_k=1, difference=0.031), hnsw)
    with pytest.raises(ExportError, match=r"found a difference of 0\.5"):
        require_equal(shifted, read_manifest(workshop.bundle("unidec")))
