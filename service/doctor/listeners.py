"""Who listens on a port, as Linux tells it under ``/proc``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")
# Columns of /proc/net/tcp, and what the state of a listening socket is there.
ADDRESS, STATE, INODE = 1, 3, 9
LISTENS = "0A"


class Listener(NamedTuple):
    """A process that listens."""

    pid: int
    command: list[str]


def find_listener(port: int) -> Listener | None:
    """The process that listens on a port; None where it is not to be seen, as another user's is not."""
    links = {f"socket:[{inode}]" for inode in _inodes(port)}
    for process in PROC.iterdir():
        if process.name.isdigit() and links & set(_links(process / "fd")):
            with suppress(OSError):  # it has ended since
                command = (process / "cmdline").read_bytes().rstrip(b"\0")
                return Listener(int(process.name), command.decode(errors="replace").split("\0"))
    return None


def _inodes(port: int) -> Iterator[str]:
    for table in ("tcp", "tcp6"):
        with suppress(FileNotFoundError):  # a kernel without IPv6
            for line in (PROC / "net" / table).read_text().splitlines()[1:]:
                columns = line.split()
                if columns[STATE] == LISTENS and int(columns[ADDRESS].rpartition(":")[2], 16) == port:
                    yield columns[INODE]


def _links(folder: Path) -> Iterator[str]:
    """What a process's descriptors are."""
    with suppress(OSError):  # another user's
        for descriptor in folder.iterdir():
            with suppress(OSError):  # closed since
                yield str(descriptor.readlink())
