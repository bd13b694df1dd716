"""A real cluster of Ray on this machine: nodes of one processor each, so three tasks run on three nodes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

from tests.ray_nodes import home, one_node
from tests.training.distributed.pair import Pair, started


@pytest.fixture(scope="package")
def ray_home() -> Iterator[Path]:
    """Where Ray puts its files."""
    with home() as folder:
        yield folder


@pytest.fixture(scope="package")
def cluster(ray_home: Path) -> Iterator[Cluster]:
    """A first node; tests add others."""
    with one_node() as made:
        yield made


@pytest.fixture(scope="package")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Two workers without Ray."""
    with started(tmp_path_factory.mktemp("pair") / "meeting") as call:
        yield call
