"""A real cluster of Ray on this machine: nodes of one processor each, so three tasks run on three nodes."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

from tests.training.distributed.pair import Pair, started

# What each node says it has: enough for the processes here, whatever machine this is. Ray gives a node half a minute to
# start, so what is not needed here is left out.
NODE = {
    "num_cpus": 1,
    "memory": 4 * 2**30,
    "object_store_memory": 80 * 2**20,
    "no_monitor": True,
    "include_log_monitor": False,
}


@pytest.fixture(scope="package")
def ray_home() -> Iterator[Path]:
    """Ray's files: a short path, as those of sockets are bounded."""
    folder = Path(tempfile.mkdtemp(prefix="ray"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")  # else a token is written into the user's home
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_TMPDIR", str(folder))
        # Beside other tests a node's agents take longer to start than Ray waits for them by default.
        patch.setenv("RAY_agent_register_timeout_ms", "120000")
        yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="package")
def cluster(ray_home: Path) -> Iterator[Cluster]:
    """The first node, which drivers use; tests add the others, and may remove them."""
    made = Cluster(initialize_head=True, head_node_args=NODE | {"include_dashboard": False})
    yield made
    ray.shutdown()
    made.shutdown()


def have_nodes(cluster: Cluster, count: int) -> None:
    """Add the nodes that are missing."""
    for _ in range(count - len(cluster.list_all_nodes())):
        cluster.add_node(wait=False, **NODE)
    cluster.wait_for_nodes(timeout=120)


@pytest.fixture(scope="package")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Two workers without Ray."""
    with started(tmp_path_factory.mktemp("pair") / "meeting") as call:
        yield call
