"""The way to Ray: a cluster of which this machine is a node, or one of this machine alone for this process."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray import serve

from service.errors import BundleError
from service.processors import available_processors
from service.ray_address import LOCAL, unreachable

logger = logging.getLogger(__name__)

NAMESPACE = "xmcserve"
# A line for each call, in files of each replica and on this process's output, would be most of its work.
LOGGING = {"log_level": "WARNING", "enable_access_log": False}


@contextmanager
def connected(address: str, processors: int = 0) -> Iterator[None]:
    """Be a driver of a cluster where Ray Serve runs.

    Args:
        address: ``local`` to start Ray on this machine's processors; else ``auto`` or the ``HOST:PORT`` of a cluster
            of which this machine is a node.
        processors: that are needed. A Ray of this machine says that it has as many, whatever it has; of a cluster that
            has fewer a line says so, since it may grow.

    Raises:
        BundleError: there is no cluster at that address.
    """
    options: dict[str, Any] = {}
    if address == LOCAL:
        options = {"include_dashboard": False, "num_cpus": max(processors, available_processors())}
    # Ray itself tries for minutes.
    if ":" in address and (reason := unreachable(address)):
        raise BundleError(f"--ray: expected a Ray cluster at {address}, found none: {reason}")
    _join_logs()
    try:
        ray.init(address, namespace=NAMESPACE, log_to_driver=False, configure_logging=False, **options)
    except Exception as error:  # what Ray raises itself of a node that does not start has no other class
        raise BundleError(f"--ray: expected a Ray cluster at {address}, found none: {error}") from error
    try:
        # Requests come by another way; where another application brings proxies along, they stay.
        serve.start(proxy_location="Disabled", logging_config=LOGGING)
        there = ray.cluster_resources().get("CPU", 0)  # type: ignore[no-untyped-call]
        if there < processors:
            logger.warning(
                "%d processors are needed, and the cluster has %d: waiting until it grows", processors, there
            )
        yield
    finally:
        ray.shutdown()


def _join_logs() -> None:
    """Have Ray's lines, of warnings and what is worse, in this process's own log: it brings handlers along."""
    for name in ("ray", "ray.serve"):
        theirs = logging.getLogger(name)
        theirs.handlers.clear()
        theirs.setLevel(logging.WARNING)
        theirs.propagate = True
