"""Processes of this machine."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def children_of(parent: int) -> set[int]:
    """The processes that a process has started and that run."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):
            state, its_parent = stat.read_text().rpartition(")")[2].split()[:2]
            if int(its_parent) == parent and state != "Z":
                found.add(int(stat.parent.name))
    return found


def has_ended(process: int) -> bool:
    """Whether a process is gone, or waits for its parent to hear of its end."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True
