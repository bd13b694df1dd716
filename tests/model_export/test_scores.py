"""What a bundle serves as scores: the options of a build, what they write, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from model_export.diff import compare_bundles
from model_export.errors import ExportError, UsageError
from model_export.verify import verify_bundle
from model_export.writer import Options, build
from service.bundle import Bundle, layout, open_bundle
from service.bundle.manifest import FeatureQuery
from service.engine import Engine
from service.models.queries import Features
from tests.artifacts import KINDS, Workshop
from training import metrics
from training.artifact import CALIBRATION, Artifact, read_artifact

KIND = "mach-features"


@pytest.fixture(scope="module")
def built(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Options], Bundle]:
    """Bundles of one small artifact, each written once."""
    artifact = read_artifact(workshop.artifact(KIND))
    folder = tmp_path_factory.mktemp("scores")
    written: dict[Options, Path] = {}

    def bundle(options: Options) -> Bundle:
        if options not in written:
            written[options] = folder / str(len(written))
            build(artifact, written[options], options)
        return open_bundle(written[options])

    return bundle


@pytest.fixture
def artifact(workshop: Workshop) -> Artifact:
    return read_artifact(workshop.artifact(KIND))


def without_calibration(artifact: Artifact, folder: Path) -> Artifact:
    """The artifact as an older program would have written it."""
    shutil.copytree(artifact.path, folder)
    (folder / CALIBRATION).unlink()
    return read_artifact(folder)


@pytest.mark.parametrize("kind", KINDS)
def test_probabilities_are_served_where_training_fitted_them(workshop: Workshop, kind: str) -> None:
    artifact = read_artifact(workshop.artifact(kind))
    bundle = open_bundle(workshop.bundle(kind))
    section = bundle.manifest.calibration
    assert section is not None
    assert artifact.calibration is not None
    assert section.model_dump(mode="json") == artifact.calibration.model_dump(mode="json")
    for golden in bundle.manifest.golden:
        scores = [label.score for label in golden.labels]
        assert all(0 <= score <= 1 for score in scores)
        assert scores == sorted(scores, reverse=True)


def test_option_scores(built: Callable[[Options], Bundle]) -> None:
    usual, calibrated, raw = (built(Options(scores=scores)) for scores in (None, "calibrated", "raw"))
    assert usual.manifest.version == calibrated.manifest.version != raw.manifest.version
    assert raw.manifest.calibration is None
    engines = [Engine.open(bundle, device="cpu") for bundle in (calibrated, raw)]
    first, second = (engine.run(engine.prepare(samples(raw)), 5) for engine in engines)
    np.testing.assert_array_equal(first.top.ids_QK, second.top.ids_QK)
    np.testing.assert_array_equal(first.keys_QK, second.top.scores_QK)
    assert first.top.scores_QK.max() <= 1 < np.abs(second.top.scores_QK).max()


def samples(bundle: Bundle) -> list[Features]:
    queries = [golden.query for golden in bundle.manifest.golden]
    return [Features(query.indices, query.values) for query in queries if isinstance(query, FeatureQuery)]


def test_option_propensity_weight(built: Callable[[Options], Bundle], artifact: Artifact) -> None:
    usual, other = built(Options()), built(Options(propensity_weight=1.5))
    section = other.manifest.propensity
    assert section is not None
    assert (section.weight, section.candidates) == (1.5, 20)  # all labels there are
    assert usual.manifest.propensity is None
    assert layout.INVERSE_PROPENSITIES not in usual.manifest.files
    card = artifact.config.card
    expected_L = metrics.inverse_propensities(
        artifact.label_counts, artifact.config.counted_rows, card.propensity_a, card.propensity_b
    )
    inverse_L = other.arrays[layout.INVERSE_PROPENSITIES]
    assert inverse_L.dtype == np.float32
    np.testing.assert_allclose(inverse_L, expected_L, rtol=1e-6)
    engine, plain = Engine.open(other, device="cpu"), Engine.open(usual, device="cpu")
    bags = engine.prepare(samples(other))
    ranked, by_score = engine.run(bags, 20).top, plain.run(bags, 20).top
    for ids, scores, plain_ids, plain_scores in zip(
        ranked.ids_QK, ranked.scores_QK, by_score.ids_QK, by_score.scores_QK, strict=True
    ):
        own = dict(zip(plain_ids.tolist(), plain_scores.tolist(), strict=True))
        assert scores.tolist() == [own[id_] for id_ in ids.tolist()]
        keys = scores * expected_L[ids] ** 1.5
        assert (np.diff(keys) <= 1e-6).all()
    assert not np.array_equal(ranked.ids_QK, by_score.ids_QK)


def test_raw_scores_are_compared_with_the_trained_model(built: Callable[[Options], Bundle], artifact: Artifact) -> None:
    """Probabilities would hide differences, and another order would make some."""
    bundles = [built(options) for options in (Options(scores="raw"), Options(), Options(propensity_weight=1.5))]
    parities = [bundle.manifest.parity for bundle in bundles]
    assert parities[0] == parities[1] == parities[2]
    for bundle in bundles:
        verified = verify_bundle(bundle.path, artifact)
        assert verified.comparison is not None
        assert verified.comparison.parity == parities[0]


def test_an_artifact_without_a_calibration_serves_raw_scores(artifact: Artifact, tmp_path: Path) -> None:
    old = without_calibration(artifact, tmp_path / "artifact")
    manifest = build(old, tmp_path / "bundle", Options()).manifest
    assert manifest.calibration is manifest.propensity is None


@pytest.mark.parametrize(
    ("options", "calibrated", "sentence"),
    [
        (
            Options(scores="calibrated"),
            False,
            "--scores calibrated: expected an artifact with a calibration, found none",
        ),
        (
            Options(propensity_weight=0.5),
            False,
            "--propensity-weight 0.5: expected calibrated scores to weight, found raw",
        ),
        (Options(scores="raw", propensity_weight=1), True, "--propensity-weight 1: expected calibrated scores"),
        (Options(propensity_weight=-1), True, "--propensity-weight: expected a number from 0 to 10, found -1"),
        (Options(propensity_weight=10.5), True, "--propensity-weight: expected a number from 0 to 10, found 10.5"),
        (
            Options(propensity_weight=float("nan")),
            True,
            "--propensity-weight: expected a number from 0 to 10, found nan",
        ),
    ],
)
def test_what_cannot_be_served_is_refused_before_any_work(
    artifact: Artifact, tmp_path: Path, options: Options, calibrated: bool, sentence: str
) -> None:
    given = artifact if calibrated else without_calibration(artifact, tmp_path / "artifact")
    with pytest.raises(UsageError, match=sentence):
        build(given, tmp_path / "bundle", options)
    assert not (tmp_path / "bundle").exists()


def test_a_bundle_with_another_calibration_is_not_the_artifacts(
    built: Callable[[Options], Bundle], artifact: Artifact, tmp_path: Path
) -> None:
    shutil.copytree(artifact.path, tmp_path / "artifact")
    file = tmp_path / "artifact" / CALIBRATION
    content = json.loads(file.read_text())
    content["ranks"] = [{"first_rank": 1, "map": {"kind": "platt", "slope": 1.0, "intercept": 0.0}}]
    file.write_text(json.dumps(content))
    other = read_artifact(tmp_path / "artifact")
    with pytest.raises(ExportError, match=f"expected the calibration of {KIND}, found another or none"):
        verify_bundle(built(Options()).path, other)
    assert verify_bundle(built(Options(scores="raw")).path, other).comparison is not None


def test_diff_shows_what_makes_scores(built: Callable[[Options], Bundle]) -> None:
    usual, raw, other = (
        built(options).path for options in (Options(), Options(scores="raw"), Options(propensity_weight=1.5))
    )
    lines = compare_bundles(usual, raw).fields
    assert any(line.startswith("calibration.ranks.0.map.kind: ") and line.endswith(" -> none") for line in lines)
    assert any(line.startswith("calibration.ranks.6.first_rank: 11 -> none") for line in lines)
    assert compare_bundles(usual, raw).agreement == 1
    lines = compare_bundles(usual, other).fields
    assert {"propensity.weight: none -> 1.5", "propensity.candidates: none -> 20"} <= set(lines)
    assert not any(line.startswith("calibration") for line in lines)
    assert any(line.startswith("inverse_propensities.npy: none -> ") for line in compare_bundles(usual, other).files)
