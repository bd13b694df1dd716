"""Real clusters of Ray on this machine: for tests only."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
import ray
from ray.cluster_utils import Cluster

# What each node says it has: enough for the processes here, whatever machine this is. What is not needed is left out.
NODE = {
    "num_cpus": 1,
    "memory": 4 * 2**30,
    "object_store_memory": 80 * 2**20,
    "no_monitor": True,
    "include_log_monitor": False,
}
# Ray gives a node half a minute to start, which beside other tests can be too little.
ATTEMPTS = 4

Result = TypeVar("Result")


@contextmanager
def home() -> Iterator[Path]:
    """Ray's files, of all that is started meanwhile: a short path, as those of sockets are bounded."""
    folder = Path(tempfile.mkdtemp(prefix="ray"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")  # else a token is written into the user's home
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_TMPDIR", str(folder))
        # Beside other tests a node's agents take longer to start than its raylet waits for them by default.
        patch.setenv("RAY_agent_register_timeout_ms", "120000")
        yield folder
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def one_node() -> Iterator[Cluster]:
    """The first node, which drivers use; tests add the others, and may remove them."""
    made = _patiently(lambda: Cluster(initialize_head=True, head_node_args=NODE | {"include_dashboard": False}))
    yield made
    ray.shutdown()
    made.shutdown()


def have_nodes(cluster: Cluster, count: int, **options: Any) -> None:
    """Add the nodes that are missing.

    Args:
        cluster: of at least one.
        count: of all nodes.
        options: of those that are added, where they are not `NODE`.
    """
    for _ in range(count - len(cluster.list_all_nodes())):
        _patiently(lambda: cluster.add_node(wait=False, **NODE | options))
    cluster.wait_for_nodes(timeout=120)


def _patiently(start: Callable[[], Result]) -> Result:
    for _ in range(ATTEMPTS - 1):
        try:
            return start()
        except Exception as error:  # what Ray raises of a node that does not start has no other class
            if "timed out during startup" not in str(error):
                raise
    return start()
