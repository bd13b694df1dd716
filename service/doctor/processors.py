"""Processors: what the container may use, and how many threads a model would have."""

from __future__ import annotations

import os
from collections.abc import Iterator

from service.doctor.context import Context
from service.doctor.findings import Finding, fault, ok
from service.processors import available_processors
from service.settings import variable


def look(context: Context) -> Iterator[Finding]:
    """See `CHECKS`."""
    available = available_processors(context.root)
    yield ok("control group", f"{available} of the machine's {os.cpu_count()} processors may be used at once")
    settings = context.settings
    for name, count in (("threads", settings.threads), ("runners", settings.runners or 1)):
        if count > available:
            yield fault(
                variable(name),
                f"expected at most {available}, the processors that may be used at once, found {count}",
                f"unset {variable(name)}, or raise the container's CPU limit",
            )
        else:
            yield ok(variable(name), f"{count}" if name == "threads" or settings.runners else "measured at the start")
