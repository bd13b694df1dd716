from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bundles import Spec, write_bundle


@pytest.fixture(scope="session")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Spec], Path]:
    """Bundles that are written once; tests change copies only."""
    written: dict[Spec, Path] = {}

    def original(spec: Spec) -> Path:
        if spec not in written:
            written[spec] = tmp_path_factory.mktemp("original") / "bundle"
            write_bundle(written[spec], spec)
        return written[spec]

    return original


@pytest.fixture
def copy(originals: Callable[[Spec], Path], tmp_path: Path) -> Callable[..., Path]:
    """Give a bundle of one's own: ``copy(method="declare")``."""

    def fresh(**fields: object) -> Path:
        path = tmp_path / "bundle"
        shutil.copytree(originals(Spec(**fields)), path)  # type: ignore[arg-type]
        return path

    return fresh
