"""A method is complete or not there: training, export, serving and the manifest know the same names."""

from __future__ import annotations

from pathlib import Path

import pytest

from model_export.exporters import EXPORTERS
from service.bundle import Manifest
from service.decoders import DECODERS
from training.methods import METHODS

ROOT = Path(__file__).parents[2]


def manifest_methods() -> list[str]:
    """The tags of the manifest's method union, as its JSON schema names them."""
    return list(Manifest.model_json_schema()["properties"]["method"]["discriminator"]["mapping"])


@pytest.mark.parametrize(
    "names", [EXPORTERS, DECODERS, manifest_methods()], ids=["EXPORTERS", "DECODERS", "manifest union"]
)
def test_every_side_knows_the_same_methods_in_the_same_order(names: object) -> None:
    assert list(names) == list(METHODS)  # type: ignore[call-overload]


@pytest.mark.parametrize("folder", ["training/methods", "model_export/exporters", "service/decoders"])
def test_every_method_is_a_file_of_its_own_name(folder: str) -> None:
    assert set(METHODS) <= {file.stem for file in (ROOT / folder).glob("*.py")}
