"""The limit of open files, which a server raises as far as it may: every connection is a file."""

from __future__ import annotations

import resource
from collections.abc import Iterator

from service.doctor.context import Context
from service.doctor.findings import Finding, fault, ok

# What most systems allow from the start.
FEWEST = 1024


def look(context: Context) -> Iterator[Finding]:
    """See `CHECKS`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < FEWEST:
        advice = "raise it: docker run --ulimit nofile=65536, LimitNOFILE= of systemd, or limits.conf"
        yield fault("open files", f"expected a hard limit of at least {FEWEST:,}, found {hard:,}", advice)
    else:
        most = "no limit" if hard == resource.RLIM_INFINITY else f"{hard:,}"
        yield ok("open files", f"soft limit {soft:,}, which a server raises to the hard one: {most}")
