"""A folder that appears whole or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from training.data.files import DataError


def refuse_existing(out: Path) -> None:
    """Refuse to write where something stands already.

    Raises:
        DataError: there is a file, folder or link of that name.
    """
    if os.path.lexists(out):
        raise DataError(out, None, "a folder that does not exist yet", "one that does")


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Give an empty folder beside `out` to write into; it becomes `out` when the block ends well, else it vanishes.

    Raises:
        DataError: `out` exists, or the folder above it cannot be written to.
    """
    refuse_existing(out)
    staged = out.parent / f".{out.name}.{secrets.token_hex(4)}.partial"
    try:
        staged.mkdir(parents=True)
    except OSError as error:
        raise DataError(out, None, "a place that can be written to", str(error)) from error
    try:
        yield staged
        staged.rename(out)
    except BaseException:
        shutil.rmtree(staged, ignore_errors=True)
        raise
