"""Answers of the shards that are there, for those who would rather have these than none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_missing: ContextVar[set[str] | None] = ContextVar("missing", default=None)


@contextmanager
def partial_answers() -> Iterator[set[str]]:
    """Let what this thread asks be answered by fewer than all shards.

    Yields:
        Names of the shards that did not answer, which are put in as they are found missing.
    """
    missing: set[str] = set()
    token = _missing.set(missing)
    try:
        yield missing
    finally:
        _missing.reset(token)


def missing_here() -> set[str] | None:
    """Where the names of missing shards go; None where all must answer."""
    return _missing.get()
