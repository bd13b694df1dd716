"""The control groups whose limits a process is under: its own and all above it, of version 2 and of version 1."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

MEMBERSHIP = Path("proc/self/cgroup")
MOUNTS = Path("sys/fs/cgroup")


def groups_v2(root: Path) -> Iterator[Path]:
    """Folders of the process's group in the unified hierarchy and of those above it.

    Args:
        root: the root of the file system that holds ``proc`` and ``sys``.
    """
    for controllers, group in _memberships(root):
        if controllers == "":
            yield from _folders(root / MOUNTS, group)


def groups_v1(root: Path, controller: str, *names: str) -> Iterator[Path]:
    """Folders of the process's group in the hierarchy of one controller and of those above it.

    Args:
        root: see `groups_v2`.
        controller: such as "memory".
        names: of the folders below ``sys/fs/cgroup`` where the hierarchy may be mounted.
    """
    for controllers, group in _memberships(root):
        if controller in controllers.split(","):
            for name in names:
                yield from _folders(root / MOUNTS / name, group)


def words(file: Path) -> list[str]:
    """What a file of a group says; nothing where it is not there."""
    return _text(file).split()


def _memberships(root: Path) -> Iterator[tuple[str, str]]:
    """Controllers of each hierarchy, none in version 2, and the process's group in it."""
    for line in _text(root / MEMBERSHIP).splitlines():
        _, controllers, group = line.split(":", 2)
        yield controllers, group


def _folders(hierarchy: Path, group: str) -> Iterator[Path]:
    """The group's folder and all folders above it; a group outside the container's view is simply not there."""
    relative = PurePosixPath(group.lstrip("/"))
    for part in (relative, *relative.parents):
        yield hierarchy / part


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError:
        return ""
