from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bundles import Spec, write_bundle
from tests.service.fetching.archives import Shelf, packed, serving


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundles") / "tiny"
    write_bundle(path, Spec(name="tiny"))
    return path


@pytest.fixture(scope="session")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundles") / "other"
    write_bundle(path, Spec(name="other", seed=1))
    return path


@pytest.fixture
def shelf(bundle: Path, other: Path) -> Iterator[Shelf]:
    with serving(tiny=packed(bundle), other=packed(other)) as shelf:
        yield shelf


@pytest.fixture
def into(tmp_path: Path) -> Path:
    return tmp_path / "models" / "tags"
