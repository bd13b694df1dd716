from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from service.bundle import Manifest
from service.bundle.manifest import (
    CalibrationSection,
    DeclareSection,
    FeatureQuery,
    FeaturesInput,
    IsotonicMap,
    MachSection,
    PlattMap,
)
from service.bundle.reader import read_manifest
from service.bundle.schema import manifest_schema
from tests.bundles import Spec, write_bundle


def test_the_schema_beside_the_model_is_in_step() -> None:
    kept = Path(__file__).parents[3] / "service" / "bundle" / "manifest.schema.json"
    assert kept.read_text() == manifest_schema(), (
        "run: python -m service.bundle.schema > service/bundle/manifest.schema.json"
    )


def test_a_manifest_survives_json_and_cannot_be_changed(tmp_path: Path) -> None:
    write_bundle(tmp_path / "bundle", Spec(method="unidec", input="features"))
    manifest = read_manifest(tmp_path / "bundle")
    assert Manifest.model_validate_json(manifest.model_dump_json()) == manifest
    assert isinstance(manifest.input, FeaturesInput)
    assert isinstance(manifest.golden[0].query, FeatureQuery)
    with pytest.raises(ValidationError, match="frozen"):
        manifest.name = "other"


@pytest.mark.parametrize("name", ["", "a b", "../a", "a/b", ".hidden", "a:1", "x" * 129])
def test_names_that_would_not_fit_into_a_url_are_refused(tmp_path: Path, name: str) -> None:
    write_bundle(tmp_path / "bundle")
    content = read_manifest(tmp_path / "bundle").model_dump()
    with pytest.raises(ValidationError, match="name"):
        Manifest.model_validate(content | {"name": name})


def test_golden_queries_must_fit_the_input(tmp_path: Path) -> None:
    write_bundle(tmp_path / "bundle")
    content = read_manifest(tmp_path / "bundle").model_dump()
    content["input"] = {"kind": "features", "dimension": 3}
    with pytest.raises(ValidationError, match=r"golden\[0\]\.query: expected features, found the other kind"):
        Manifest.model_validate(content)


@pytest.mark.parametrize(
    ("spec", "change"),
    [
        (Spec(reranked=True, input="features"), {"terms": True}),
        (Spec(reranked=True), {"present": True}),
    ],
)
def test_word_classifiers_must_read_the_input(tmp_path: Path, spec: Spec, change: dict[str, bool]) -> None:
    write_bundle(tmp_path / "bundle", spec)
    content = read_manifest(tmp_path / "bundle").model_dump()
    with pytest.raises(ValidationError, match=f"present with features alone, found {spec.input}"):
        Manifest.model_validate(content | {"rerank": content["rerank"] | change})


@pytest.mark.parametrize(
    "change",
    [{"repetitions": 0}, {"buckets": 1}, {"aggregation": "mean"}, {"activation": "relu"}, {"repetitions": 4.0}],
)
def test_a_section_takes_sensible_values_only(change: dict[str, Any]) -> None:
    section = {
        "repetitions": 4,
        "buckets": 16,
        "aggregation": "min",
        "activation": "sigmoid",
        "hash": {"seed": 0},
    }
    assert MachSection.model_validate(section).hash.family == "murmur3_x86_32"
    with pytest.raises(ValidationError):
        MachSection.model_validate(section | change)


def test_an_older_manifest_serves_raw_scores_in_their_order(tmp_path: Path) -> None:
    """Manifests that were written before there were calibrations have no such keys."""
    write_bundle(tmp_path / "bundle")
    content = read_manifest(tmp_path / "bundle").model_dump()
    assert content.pop("calibration") is content.pop("propensity") is None
    manifest = Manifest.model_validate(content)
    assert manifest.calibration is manifest.propensity is None


KNOTS = {"scores": (0.0, 1.0), "probabilities": (0.2, 0.2)}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"scores": (0.0,)}, "expected as many probabilities as scores, found 2 and 1"),
        ({"scores": (1.0, 1.0)}, "scores: expected strictly rising numbers"),
        ({"scores": (2.0, 1.0)}, "scores: expected strictly rising numbers"),
        ({"probabilities": (0.3, 0.2)}, "probabilities: expected numbers that never fall"),
        ({"probabilities": (0.3, 1.2)}, "less than or equal to 1"),
        ({"probabilities": (-0.3, 0.2)}, "greater than or equal to 0"),
        ({"scores": (), "probabilities": ()}, "at least 1 item"),
        ({"scores": (0.0, float("inf"))}, "finite number"),
    ],
)
def test_knots_must_rise(change: dict[str, Any], sentence: str) -> None:
    assert IsotonicMap.model_validate(KNOTS).scores == (0, 1)
    with pytest.raises(ValidationError, match=sentence):
        IsotonicMap.model_validate(KNOTS | change)


@pytest.mark.parametrize("slope", [-0.1, float("nan"), float("inf")])
def test_a_curve_must_rise(slope: float) -> None:
    with pytest.raises(ValidationError, match="slope"):
        PlattMap(slope=slope, intercept=0.0)


@pytest.mark.parametrize("firsts", [[2], [1, 1], [1, 3, 2], [0, 1], []])
def test_maps_must_begin_at_rank_1_and_rise(firsts: list[int]) -> None:
    ranks = [{"first_rank": first, "map": {"kind": "platt", "slope": 1.0, "intercept": 0.0}} for first in firsts]
    with pytest.raises(ValidationError, match=r"expected first ranks that rise from 1|greater than|at least 1 item"):
        CalibrationSection.model_validate({"ranks": tuple(ranks)})


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"calibration": None}, "propensity: expected a calibration beside it, found raw scores"),
        ({"propensity": {"weight": 0.0, "candidates": 5}}, "propensity.weight"),
        ({"propensity": {"weight": 11.0, "candidates": 5}}, "propensity.weight"),
        ({"propensity": {"weight": 1.0, "candidates": 0}}, "propensity.candidates"),
    ],
)
def test_re_ranking_needs_probabilities_and_sensible_numbers(
    tmp_path: Path, change: dict[str, Any], sentence: str
) -> None:
    write_bundle(tmp_path / "bundle", Spec(propensity_weight=1.0))
    content = read_manifest(tmp_path / "bundle").model_dump()
    with pytest.raises(ValidationError, match=sentence):
        Manifest.model_validate(content | change)


def test_an_index_holds_divided_rows_already() -> None:
    with pytest.raises(ValidationError, match="divided: expected null with recovery rows"):
        DeclareSection(rank=3, neighbours=2, recovery="rows", divided=True)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("inf")])
def test_a_temperature_is_above_zero(temperature: float) -> None:
    with pytest.raises(ValidationError, match="temperature"):
        DeclareSection(rank=3, neighbours=2, recovery="rows", temperature=temperature)


@pytest.mark.parametrize(
    ("spec", "change", "sentence"),
    [
        (Spec(method="unidec", zero_shot=2), {"zero_shot": 40}, "expected less than all 40 labels, found 40"),
        (
            Spec(method="unidec", zero_shot=2),
            {"zero_shot": 0},
            "changes.*expected labels that were added or disabled",
        ),
        (Spec(method="unidec", zero_shot=2), {"zero_shot": -1}, "changes.zero_shot"),
        (Spec(method="mach", disabled=(1,)), {"zero_shot": 1}, "changes.zero_shot: expected 0 without method.reading"),
        (
            Spec(method="unidec", reads_labels=False, disabled=(1,)),
            {"zero_shot": 1},
            "expected 0 without method.reading",
        ),
    ],
)
def test_changes_of_labels_must_be_possible(tmp_path: Path, spec: Spec, change: dict[str, int], sentence: str) -> None:
    write_bundle(tmp_path / "bundle", spec)
    content = read_manifest(tmp_path / "bundle").model_dump()
    Manifest.model_validate(content)
    with pytest.raises(ValidationError, match=f"(?s){sentence}"):
        Manifest.model_validate(content | {"changes": {"zero_shot": 0, "disabled": 0} | change})


def test_labels_are_read_from_texts_by_a_dual_encoder_alone(tmp_path: Path) -> None:
    write_bundle(tmp_path / "bundle", Spec(method="unidec"))
    content = read_manifest(tmp_path / "bundle").model_dump()
    method = content["method"]
    with pytest.raises(ValidationError, match="reading: expected null where no dual encoder is served"):
        Manifest.model_validate(content | {"method": method | {"heads": "classifier"}})
    features = {"input": {"kind": "features", "dimension": 30}, "golden": ()}
    with pytest.raises(ValidationError, match="reading: expected null with features, found it"):
        Manifest.model_validate(content | features)
