"""Flags and variables: those that a server would refuse."""

from __future__ import annotations

import re
from collections.abc import Iterator

from service.doctor.context import Context
from service.doctor.findings import Finding, fault, ok
from service.settings import PREFIX, options, variable

# What Kubernetes makes for a Service that is called "xmc", or "xmc-" and something.
_SERVICE_LINK = re.compile(rf"{PREFIX}(\w+_)?(SERVICE_HOST|SERVICE_PORT\w*|PORT(_\d+_(TCP|UDP)\w*)?)")
_ADDRESS = re.compile(rf"{PREFIX}\w*PORT must be .*'(tcp|udp)://")


def look(context: Context) -> Iterator[Finding]:
    """See `CHECKS`."""
    for error in context.errors:
        yield fault("XMC_ and flags", str(error), _advice(str(error)))
    if not context.errors:
        given = [name for name in map(variable, options()) if name in context.environment]
        yield ok("XMC_ and flags", f"all can be read; variables: {', '.join(given) or 'none'}")


def _advice(sentence: str) -> str:
    unknown = re.search(rf"environment variable ({PREFIX}\w+) is unknown", sentence)
    if (unknown and _SERVICE_LINK.fullmatch(unknown[1])) or _ADDRESS.match(sentence):
        return "a Service of Kubernetes makes such variables: set enableServiceLinks: false in the pod"
    if unknown:
        return "correct the name, or unset it"
    if "is not installed" in sentence:
        return "install the extra, or leave the setting out"
    return "correct the value; xmc-serve run --help says what each takes"
