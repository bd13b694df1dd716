"""Whether a folder may be written to, found out by doing it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

# More than a file system keeps beside its directories: one that is full must be noticed.
_TRIAL_BYTES = 1 << 16


def why_not_writable(folder: Path) -> str | None:
    """Why a file cannot be written in a folder, or None when it can; nothing stays behind."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(_TRIAL_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error.strerror or str(error)
    return None


def nearest_there(folder: Path) -> Path:
    """The folder itself, or that of those above it which is there and in which it would be made."""
    places = (folder, *folder.absolute().parents)
    return next(place for place in places if os.access(place, os.F_OK))
