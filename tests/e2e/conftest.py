from __future__ import annotations

import pytest

from tests.artifacts import Workshop


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """The session's models and bundles; the same folder for every test that asks, wherever it lies."""
    return Workshop.of_session(tmp_path_factory.getbasetemp())
