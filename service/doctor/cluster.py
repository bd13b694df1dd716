"""Ray: whether there is a cluster where one is said to be, as far as that can be seen without joining it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from service.doctor.context import Context
from service.doctor.findings import Finding, fault, ok
from service.ray_address import AUTO, LOCAL, unreachable
from service.settings import variable


def look(context: Context) -> Iterator[Finding]:
    """See `CHECKS`."""
    address = context.settings.ray
    if address is None:
        return
    subject = variable("ray")
    if address == LOCAL:
        yield ok(subject, "one of this machine, which starts with the server")
        return
    if address == AUTO:
        address = _of_this_machine(context.environment)
    if not address:
        advice = f"ray start --address=HOST:PORT on this machine, or set {subject} to the cluster's HOST:PORT"
        yield fault(subject, "expected this machine to be a node of a Ray cluster, found none", advice)
    elif reason := unreachable(address):
        advice = "start the cluster (ray start --head), or open the way to its port"
        yield fault(subject, f"expected a Ray cluster at {address}, found: {reason}", advice)
    else:
        yield ok(subject, f"something listens at {address}")


def _of_this_machine(environment: Mapping[str, str]) -> str:
    """The cluster that Ray's own programs find, by what they look at; nothing where there is none."""
    if (address := environment.get("RAY_ADDRESS", AUTO)) not in ("", AUTO):
        return address
    temporary = environment.get("RAY_TMPDIR", environment.get("TMPDIR", "/tmp"))
    try:
        return Path(temporary, "ray", "ray_current_cluster").read_text(encoding="utf-8").strip()
    except OSError:
        return ""
