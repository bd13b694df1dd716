"""How much memory a process has, and how much it may have."""

from __future__ import annotations

import os
from pathlib import Path

from service.cgroups import groups_v1, groups_v2, words

# Version 1 writes "no limit" as the largest number of whole pages.
UNLIMITED_BYTES = 1 << 62


def resident_bytes(pid: int) -> int:
    """Resident memory of a process in bytes, mapped files included; 0 when it has ended."""
    try:
        pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    except (FileNotFoundError, ProcessLookupError):  # the second when it ends between opening and reading
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def machine_bytes() -> int:
    """Memory of the machine."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def memory_limit_bytes(root: Path = Path("/")) -> int | None:
    """The smallest memory limit in bytes of the process's control groups (version 2 or 1); None when none sets one.

    Args:
        root: the root of the file system that holds ``proc`` and ``sys``.
    """
    files = [group / "memory.max" for group in groups_v2(root)]
    files += [group / "memory.limit_in_bytes" for group in groups_v1(root, "memory", "memory")]
    limits = [int(word) for file in files for word in words(file) if word != "max"]
    return min((limit for limit in limits if limit < UNLIMITED_BYTES), default=None)
