"""The module ``service``: ours, whole and alone. Packages on public indexes have the same name."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import service
from service.doctor.context import Context
from service.doctor.findings import Finding, fault, note, ok

SUBJECT = "module service"


def look(context: Context) -> Iterator[Finding]:
    """See `CHECKS`."""
    ours = Path(__file__).parents[1]
    begins = Path(service.__file__ or "").parent
    if begins.resolve() != ours.resolve():
        yield fault(
            SUBJECT,
            f"expected {ours}, found that it begins with {begins / '__init__.py'}",
            f"take {begins.parent} from the path, or uninstall the package that is there",
        )
    else:
        yield ok(SUBJECT, str(ours))
    for other in _others({ours.resolve(), begins.resolve()}):
        yield note(SUBJECT, f"another one lies behind ours on the path: {other}", "uninstall it if it is not yours")


def _others(known: set[Path]) -> Iterator[Path]:
    """Other modules of this name on the path."""
    for entry in dict.fromkeys(sys.path):
        for place in (Path(entry) / "service" / "__init__.py", Path(entry) / "service.py"):
            if place.is_file() and place.parent.resolve() not in known:
                yield place
