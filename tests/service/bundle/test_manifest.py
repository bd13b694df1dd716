from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from service.bundle import Manifest
from service.bundle.manifest import FeatureQuery, FeaturesInput, MachSection
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
