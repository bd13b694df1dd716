"""How many processors this process may use: the container's share, not the host's core count.

Thread pools sized from the host's cores inside a container with two of them spend their time waiting for each other,
so every pool of the service is sized from this one number.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import TypeVar

CGROUP_MEMBERSHIP = Path("proc/self/cgroup")
CGROUP_V2 = Path("sys/fs/cgroup")
CGROUP_V1 = (Path("sys/fs/cgroup/cpu"), Path("sys/fs/cgroup/cpu,cpuacct"))

Given = TypeVar("Given")
Result = TypeVar("Result")


def available_processors(root: Path = Path("/")) -> int:
    """The whole processors this process may use at once, at least one.

    The smaller of the scheduler's affinity mask and the CPU quota of the process's control group (version 2 or 1) and
    of all groups above it. A quota of 1.5 processors counts as one: a second thread would be throttled half the time.

    Args:
        root: the root of the file system that holds ``proc`` and ``sys``.
    """
    quotas = [quota for quota in _quotas(root) if quota > 0]
    return max(1, math.floor(min([float(len(os.sched_getaffinity(0))), *quotas])))


def at_once(check: Callable[[Given], Result], given: Iterable[Given]) -> list[Result]:
    """What a function says of each of several things, on all processors: it must let go of the interpreter's lock."""
    with ThreadPoolExecutor(available_processors()) as pool:
        return list(pool.map(check, given))


def _quotas(root: Path) -> Iterator[float]:
    """The quota in processors of every control group above this process that sets one."""
    try:
        memberships = (root / CGROUP_MEMBERSHIP).read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for membership in memberships:
        _, controllers, group = membership.split(":", 2)
        if controllers == "":
            for folder in _folders(root / CGROUP_V2, group):
                yield from _quota_v2(folder / "cpu.max")
        elif "cpu" in controllers.split(","):
            for hierarchy in CGROUP_V1:
                for folder in _folders(root / hierarchy, group):
                    yield from _quota_v1(folder)


def _folders(hierarchy: Path, group: str) -> Iterator[Path]:
    """The group's folder and all folders above it; a group outside the container's view is simply not there."""
    relative = PurePosixPath(group.lstrip("/"))
    for part in (relative, *relative.parents):
        yield hierarchy / part


def _quota_v2(file: Path) -> Iterator[float]:
    words = _words(file)
    if len(words) == 2 and words[0] != "max":
        yield int(words[0]) / int(words[1])


def _quota_v1(folder: Path) -> Iterator[float]:
    quota, period = _words(folder / "cpu.cfs_quota_us"), _words(folder / "cpu.cfs_period_us")
    if quota and period:
        yield int(quota[0]) / int(period[0])


def _words(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8").split()
    except OSError:
        return []
