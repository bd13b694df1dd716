"""A bundle folder that appears whole, in place of the old one or not at all."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from model_export.errors import UsageError
from service.bundle import layout


def check_replaceable(out: Path, inner: str = "") -> None:
    """Refuse, before any work, to write over anything that is not a bundle, or holds one as ``inner``.

    Raises:
        UsageError: ``out`` is a file, a link, or a folder that holds something else.
    """
    if not os.path.lexists(out):
        return
    if out.is_symlink() or not out.is_dir():
        raise UsageError(f"{out}: expected a bundle to replace, or nothing, found {_kind(out)}")
    if any(out.iterdir()) and not _is_bundle(out / inner):
        raise UsageError(f"{out}: expected a bundle to replace, or nothing, found a folder of other files")


@contextmanager
def replacing(out: Path, inner: str = "") -> Iterator[Path]:
    """Give an empty folder beside ``out``; it takes its place when the block ends well, else it vanishes.

    Readers that have the old files open keep them. Between two renames there is a moment in which ``out`` does not
    exist; a process that is killed just then leaves the old folder beside it, its name ending in ``.old``.

    Raises:
        UsageError: as `check_replaceable`.
        OSError: the folder above cannot be written to.
    """
    check_replaceable(out, inner)
    out = Path(os.path.abspath(out))  # noqa: PTH100 (Path.resolve would follow links)
    staged = out.parent / f".{out.name}.{secrets.token_hex(4)}.partial"
    staged.mkdir(parents=True)
    try:
        yield staged
        _swap(staged, out)
    except BaseException:
        shutil.rmtree(staged, ignore_errors=True)
        raise


def _swap(staged: Path, out: Path) -> None:
    if not out.exists():
        staged.rename(out)
        return
    retired = staged.with_suffix(".old")
    out.rename(retired)
    try:
        staged.rename(out)
    except BaseException:
        retired.rename(out)
        raise
    shutil.rmtree(retired)


def _is_bundle(folder: Path) -> bool:
    """Whether it has a manifest, of whatever version."""
    try:
        manifest = json.loads((folder / layout.MANIFEST).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(manifest, dict) and "schema_version" in manifest


def _kind(path: Path) -> str:
    return "a link" if path.is_symlink() else "a file"
