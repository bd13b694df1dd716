"""Compiled kernels: where numba keeps them, and whether there are some."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from service.doctor.child import ask
from service.doctor.context import Context
from service.doctor.findings import Finding, fault, note, ok
from service.doctor.places import nearest_there, why_not_writable
from service.doctor.probes import find_cache
from service.kernels import FOLDER, VARIABLE

PATTERN = "*.nbi"  # of numba's indexes, one a kernel
ADVICE = f"set {VARIABLE} to a folder that the server's user may write to, which need not be there, such as /tmp/numba"
LATER = "none needed: the first start takes some seconds more, while they are compiled"
BEFORE = f"{LATER}; python -m service.kernels does it before"


def look(context: Context) -> Iterator[Finding]:
    """See `CHECKS`."""
    named = context.environment.get(VARIABLE)
    if not named:
        yield _beside_source()
        return
    place = Path(named)
    there = nearest_there(place)
    if (reason := why_not_writable(there)) is not None:
        found = f"expected a folder that may be written to, found: {there}: {reason}"
        yield fault(f"{VARIABLE} {place}", found, ADVICE)
    elif place.exists():
        yield _kept(f"{VARIABLE} {place}", place)
    elif FOLDER.is_dir():
        yield ok(f"{VARIABLE} {place}", f"a server copies kernels to it: {_count(FOLDER)}, from {FOLDER}")
    else:
        yield note(f"{VARIABLE} {place}", "no kernels yet", BEFORE)


def _beside_source() -> Finding:
    """Where numba would keep them by its own rule; asked there, because it tries to write."""
    answers, end = ask(find_cache)
    if end is not None:
        return fault("numba's folder", f"the process that asks for it {end}", "see what other checks name")
    (place,) = answers
    if place is None:
        return fault("numba's folder", "found no place to keep kernels: every start would compile them anew", ADVICE)
    return _kept("numba's folder", Path(place))


def _kept(subject: str, folder: Path) -> Finding:
    if not (count := _count(folder)):
        return note(subject, f"{folder}: no kernels yet", LATER)
    return ok(subject, f"kernels in {folder}: {count}")


def _count(folder: Path) -> int:
    return sum(1 for _ in folder.rglob(PATTERN))
