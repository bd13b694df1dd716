"""Ray: whether there is a cluster where one is said to be, as far as that can be seen without joining it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

from service.doctor.context import Context
from service.doctor.findings import Finding, fault, ok
from service.settings import variable

# What Ray's own programs look at, in this order, for the cluster of this machine.
ADDRESS = "RAY_ADDRESS"
CURRENT = Path("/tmp/ray/ray_current_cluster")  # Ray's own
CONNECT_SECONDS = 5


def look(context: Context) -> Iterator[Finding]:
    """See `CHECKS`."""
    address = context.settings.ray
    if address is None:
        return
    subject = variable("ray")
    if address == "local":
        yield ok(subject, "one of this machine, which starts with the server")
        return
    if address == "auto":
        address = context.environment.get(ADDRESS) or _current()
    if not address:
        advice = f"ray start --address=HOST:PORT on this machine, or set {subject} to the cluster's HOST:PORT"
        yield fault(subject, "expected this machine to be a node of a Ray cluster, found none", advice)
        return
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
    except (OSError, ValueError, OverflowError) as error:
        advice = "start the cluster (ray start --head), or open the way to its port"
        yield fault(subject, f"expected a Ray cluster at {address}, found: {error}", advice)
    else:
        yield ok(subject, f"something listens at {address}")


def _current() -> str:
    try:
        return CURRENT.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
