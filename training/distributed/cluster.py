"""The way to Ray: a cluster that is there, or one of this machine alone that ends with the run."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import ray
from ray import ObjectRef
from ray.exceptions import RayError, RayTaskError
from ray.util.queue import Queue
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from training.loop import RunError
from training.parts import PartLost

LOCAL = "local"
MIB = 2**20
CONNECT_SECONDS = 5
# What a worker of Ray holds that has imported NumPy, SciPy and nothing of torch: 122 to 155 MiB were measured.
WORKER_BYTES = 160 * MIB
# What a worker of Ray holds beyond a driver that plans before it is connected: with the same libraries loaded and no
# rows, 516 and 473 MiB were measured.
CONNECTION_BYTES = 48 * MIB
# How often a task is started again before the run gives up: nodes come and go, but a process that always dies must end
# it.
RETRIES = 10

_T = TypeVar("_T")


@contextmanager
def connected(address: str) -> Iterator[None]:
    """Be a driver of a cluster; tasks that still run when the block is left are ended.

    Args:
        address: ``local`` to start Ray on this machine's processors; else ``auto`` or the ``HOST:PORT`` of a cluster
            of which this machine is a node.

    Raises:
        RunError: there is no cluster at that address, or it is one of Ray Client.
    """
    if "://" in address:
        # Its driver is no node of the cluster, and need not see the storage that nodes see.
        raise RunError(f"--ray: expected local, auto or the HOST:PORT of a cluster, found {address}")
    # Read when Ray is started; a cluster that is there has its own setting.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    dashboard = False if address == LOCAL else None
    if ":" in address:
        _check_port(address)
    try:
        ray.init(address, include_dashboard=dashboard, logging_level=logging.WARNING, log_to_driver=False)
    except Exception as error:  # what Ray raises itself of a node that does not start has no other class
        raise RunError(f"--ray: expected a Ray cluster at {address}, found none: {error}") from error
    try:
        yield
    finally:
        ray.shutdown()


def _check_port(address: str) -> None:
    """Look first: Ray itself tries for minutes."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
    except (OSError, ValueError, OverflowError) as error:
        raise RunError(f"--ray: expected a Ray cluster at {address}, found none: {error}") from error


def check_memory(needed: int, task: str) -> None:
    """Refuse what no node could run: Ray would wait for a larger one.

    Ray has no public way to tell whether a cluster will grow by itself, so nodes that are yet to come do not count.

    Args:
        needed: bytes of one task or worker.
        task: what it is, in words.

    Raises:
        RunError: no node of the cluster has as much.
    """
    most = max(int(node["Resources"].get("memory", 0)) for node in _nodes() if node["Alive"])
    if most < needed:
        raise RunError(
            f"--ray: expected a node with {needed / MIB:,.0f} MiB for {task}, found {most / MIB:,.0f} MiB at most"
        )


def total(resource: str) -> int:
    """What all nodes have of a resource, ``CPU`` or ``GPU``."""
    return int(ray.cluster_resources().get(resource, 0))  # type: ignore[no-untyped-call]


def line_queue() -> Queue:
    """A queue that lives where the driver does, so that no other node's death ends it."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})


def result_of(task: ObjectRef[_T], lost: str) -> _T:
    """What a task gave; what it raised itself is raised here as it is.

    Args:
        task: its result-to-be.
        lost: what to say when there is none, because its node or process died too often.

    Raises:
        PartLost: there is none.
    """
    try:
        result: _T = ray.get(task)
    except RayTaskError as error:
        raise error.cause from error
    except RayError as error:
        raise PartLost(f"{lost}; fit --resume continues the run: {error}") from error
    return result


def _nodes() -> list[dict[str, Any]]:
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return nodes
