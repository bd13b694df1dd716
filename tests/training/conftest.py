"""What the training tests share: one torch thread, and data folders that no test changes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.training.synthetic import write_features, write_texts


@pytest.fixture(autouse=True, scope="package")
def _one_thread() -> Iterator[None]:
    """Tensors here are tiny: a second thread only waits for the first."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="package")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of texts with label texts."""
    return write_texts(tmp_path_factory.mktemp("data") / "texts")


@pytest.fixture(scope="package")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of sparse features."""
    return write_features(tmp_path_factory.mktemp("data") / "features")
