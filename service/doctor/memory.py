"""Memory: what the container may have, and what bundles and processes take."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from service.doctor.context import Context
from service.doctor.findings import Finding, fault, ok
from service.memory import machine_bytes, memory_limit_bytes

# Resident memory of the process that speaks HTTP, and of one that computes for a model whose own files are next to
# nothing: `python -m tests.benchmarks.endurance`; see "Memory does not grow" in service/README.md.
HTTP_BYTES = 71_000_000
MODEL_BYTES = 229_000_000


def look(context: Context) -> Iterator[Finding]:
    """See `CHECKS`."""
    machine = machine_bytes()
    limit = memory_limit_bytes(context.root)
    most = machine if limit is None else min(limit, machine)
    has = f"{_megabytes(machine)} of the machine" if most == machine else f"a limit of {_megabytes(most)}"
    bundles = context.settings.bundles
    files = sum(map(_size, bundles))
    needed = HTTP_BYTES + len(bundles) * MODEL_BYTES + files
    need = f"bundles ({_megabytes(files)}) and processes ({1 + len(bundles)}) take about {_megabytes(needed)}"
    if needed > most:
        advice = f"raise the container's memory limit above {_megabytes(needed)}, or serve fewer or smaller bundles"
        yield fault("limit", f"{need}, found {has}", advice)
    else:
        yield ok("limit", f"{has}; {need}")


def _size(bundle: Path) -> int:
    """Bytes of a bundle's files; none where they cannot be looked at, which the check of bundles tells."""
    try:
        return sum(file.stat().st_size for file in bundle.iterdir())
    except OSError:
        return 0


def _megabytes(number: int) -> str:
    return f"{number / 1e6:,.0f} MB"
