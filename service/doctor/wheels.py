"""Wheels that overwrite each other: several of one module in one environment."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import distributions

from service.doctor.context import Context
from service.doctor.findings import Finding, fault, ok

# What brings a module back once all that own it are gone.
REINSTALL = {
    "onnxruntime": "install one flavour: pip install -c constraints.txt '.[serve,cpu]' or '.[serve,gpu]'",
    "faiss": "pip install -c constraints.txt faiss-cpu, which both flavours use",
    "service": "install xmcserve again",
}


def look(context: Context) -> Iterator[Finding]:
    """See `CHECKS`."""
    owners = _owners()
    for module, reinstall in REINSTALL.items():
        names = sorted(owners[module])
        if len(names) > 1 or (module == "service" and names not in ([], ["xmcserve"])):
            written = " and ".join(names)
            advice = f"pip uninstall --yes {' '.join(names)}, then {reinstall}"
            yield fault(f"module {module}", f"expected one wheel of it, found {written}", advice)
        elif names:
            yield ok(f"module {module}", f"of {names[0]} alone")


def _owners() -> dict[str, set[str]]:
    """Which distributions have installed something into each of the modules."""
    owners: dict[str, set[str]] = {module: set() for module in REINSTALL}
    for distribution in distributions():
        record = "\n" + (distribution.read_text("RECORD") or "")
        for module, names in owners.items():
            if f"\n{module}/" in record or f"\n{module}.py," in record:
                names.add(distribution.name)
    return owners
