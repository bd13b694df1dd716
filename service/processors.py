"""How many processors this process may use: the container's share, not the host's core count.

Thread pools sized from the host's cores inside a container with two of them spend their time waiting for each other,
so every pool of the service is sized from this one number.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from service.cgroups import groups_v1, groups_v2, words

# Version 1 mounts the controller alone, or with that which counts.
HIERARCHIES_V1 = ("cpu", "cpu,cpuacct")

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
    for group in groups_v2(root):
        yield from _quota_v2(group / "cpu.max")
    for group in groups_v1(root, "cpu", *HIERARCHIES_V1):
        yield from _quota_v1(group)


def _quota_v2(file: Path) -> Iterator[float]:
    quota = words(file)
    if len(quota) == 2 and quota[0] != "max":
        yield int(quota[0]) / int(quota[1])


def _quota_v1(folder: Path) -> Iterator[float]:
    quota, period = words(folder / "cpu.cfs_quota_us"), words(folder / "cpu.cfs_period_us")
    if quota and period:
        yield int(quota[0]) / int(period[0])
