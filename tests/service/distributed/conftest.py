"""A real cluster of Ray with Ray Serve on this machine: a node that drivers use, and two that hold what is deployed."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from service.distributed.environment import prepare

prepare()

import ray  # noqa: E402  # reads what was set
from ray import serve  # noqa: E402
from ray.cluster_utils import Cluster  # noqa: E402

from tests.ray_nodes import have_nodes, home, one_node  # noqa: E402

PROCESSORS = 8


@pytest.fixture(scope="package")
def cluster() -> Iterator[Cluster]:
    """Nodes with room for all that tests deploy."""
    with home(), one_node() as made:
        have_nodes(made, 3, num_cpus=PROCESSORS)
        yield made


@pytest.fixture(scope="package")
def proxy(cluster: Cluster) -> Iterator[int]:
    """The port of Ray Serve's own HTTP."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    ray.init(cluster.address, namespace="xmcserve", log_to_driver=False)
    serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": port})
    yield port
    serve.shutdown()
    ray.shutdown()
