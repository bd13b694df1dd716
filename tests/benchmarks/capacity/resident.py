"""What a process has in memory, by what it is: Linux alone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

# The first line of a mapping, with its file's path where it has one.
HEAD = re.compile(r"^[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ \d+ *(.*)$")
KIB = 1024


class Resident(NamedTuple):
    """Bytes.

    Attributes:
        private: of no file, or changed since they were read: nothing but this process holds them.
        mapped: of files in the folder, which others may share and the system may take back.
        code: of all other files, libraries above all.
    """

    private: int
    mapped: int
    code: int


def resident(pid: int, folder: Path) -> Resident:
    """Memory of a process, told apart by the folder of its bundle."""
    prefix = f"{folder.resolve()}/"
    private = mapped = code = 0
    place, size = "", 0
    for line in Path(f"/proc/{pid}/smaps").read_text(encoding="utf-8").splitlines():
        if head := HEAD.match(line):
            place = head[1]
        elif line.startswith("Rss:"):
            size = KIB * int(line.split()[1])
        elif line.startswith("Anonymous:"):
            anonymous = KIB * int(line.split()[1])
            private += anonymous
            if place.startswith(prefix):
                mapped += size - anonymous
            else:
                code += size - anonymous
    return Resident(private, mapped, code)
