"""A method is complete or not there: training, export, serving and the manifest know the same names."""

from __future__ import annotations

from pathlib import Path

import pytest

from model_export.exporters import EXPORTERS
from service.bundle import Manifest
from service.decoders import DECODERS
from training.methods import METHODS

ROOT = Path(__file__).parents[2]


def manifest_methods() -> set[str]:
    """The tags of the manifest's method union, as its JSON schema names them; pydantic sorts them."""
    return set(Manifest.model_json_schema()["properties"]["method"]["discriminator"]["mapping"])


@pytest.mark.parametrize("names", [list(EXPORTERS), list(DECODERS)], ids=["EXPORTERS", "DECODERS"])
def test_every_side_knows_the_same_methods_in_the_same_order(names: list[str]) -> None:
    assert names == list(METHODS)


def test_the_manifest_knows_the_same_methods() -> None:
    assert manifest_methods() == set(METHODS)


@pytest.mark.parametrize("folder", ["training/methods", "model_export/exporters", "service/decoders"])
def test_every_method_is_a_file_of_its_own_name(folder: str) -> None:
    assert set(METHODS) <= {file.stem for file in (ROOT / folder).glob("*.py")}
