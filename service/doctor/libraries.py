"""Compiled libraries: whether this processor and this system can load them."""

from __future__ import annotations

from collections.abc import Iterator

from service.doctor.child import ask
from service.doctor.context import Context
from service.doctor.findings import Finding, fault, ok
from service.doctor.probes import import_all

# Those whose build is worth a line come last.
LIBRARIES: tuple[str, ...] = (
    "numpy", "scipy", "pydantic", "orjson", "tokenizers", "uvloop", "httptools", "numba", "onnxruntime", "faiss",
)  # fmt: skip
OWN_LINE = ("onnxruntime", "faiss")
ADVICE = (
    "reinstall it and what it needs: pip install --force-reinstall -c constraints.txt '.[serve,cpu]' or '.[serve,gpu]'"
)


def look(context: Context) -> Iterator[Finding]:
    """See `CHECKS`."""
    versions = []
    for name, can_be_imported, answer in _answers():
        if not can_be_imported:
            yield fault(name, f"cannot be imported: {answer}", ADVICE)
        elif name in OWN_LINE:
            yield ok(name, answer)
        else:
            versions.append(f"{name} {answer}")
    if versions:
        yield ok("others", ", ".join(versions))


def _answers() -> Iterator[tuple[str, bool, str]]:
    """What each library answers; those behind one that ends the process are asked in the next."""
    names = LIBRARIES
    while names:
        answers, end = ask(import_all, *names)
        for name, (can_be_imported, answer) in zip(names, answers, strict=False):
            yield name, can_be_imported, answer
        names = names[len(answers) :]
        if names:
            yield names[0], False, f"the process {end}; the wheel may be for other processors, or clash with another"
            names = names[1:]
