"""How much memory a process has."""

from __future__ import annotations

import os
from pathlib import Path


def resident_bytes(pid: int) -> int:
    """Resident memory of a process in bytes, mapped files included; 0 when it has ended."""
    try:
        pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    except (FileNotFoundError, ProcessLookupError):  # the second when it ends between opening and reading
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
