"""A real cluster of Ray with Ray Serve on this machine: a node that drivers use, and two that hold what is deployed."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from service.distributed.environment import prepare
from tests.training.distributed.conftest import NODE, cluster, ray_home

prepare()

import ray  # noqa: E402  # reads what was set
from ray import serve  # noqa: E402
from ray.cluster_utils import Cluster  # noqa: E402

__all__ = ["cluster", "ray_home"]

WORKER = NODE | {"num_cpus": 8}


@pytest.fixture(scope="package")
def proxy(cluster: Cluster) -> Iterator[int]:
    """The port of Ray Serve's own HTTP, with the cluster grown by two nodes."""
    for _ in range(2):
        cluster.add_node(wait=False, **WORKER)
    cluster.wait_for_nodes(timeout=120)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    ray.init(cluster.address, namespace="xmcserve", log_to_driver=False)
    serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": port})
    yield port
    serve.shutdown()
    ray.shutdown()
