from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from service.memory import memory_limit_bytes, resident_bytes
from tests.service.cgroups import write


def test_a_process_has_memory_until_it_has_ended() -> None:
    assert resident_bytes(os.getpid()) > 1 << 20
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert resident_bytes(process.pid) == 0


def test_a_process_may_end_while_it_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    def end(_: Path) -> str:
        raise ProcessLookupError

    monkeypatch.setattr(Path, "read_text", end)
    assert resident_bytes(os.getpid()) == 0


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max\n"}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "268435456\n"}, 256 << 20),
        (
            {
                "proc/self/cgroup": "0::/pods/my pod\n",
                "sys/fs/cgroup/pods/memory.max": "1000",
                "sys/fs/cgroup/pods/my pod/memory.max": "2000",
            },
            1000,
        ),
        (
            {
                "proc/self/cgroup": "5:cpu:/docker/abc\n4:memory:/docker/abc\n",
                "sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes": "4096",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
            },
            4096,
        ),
        (
            {"proc/self/cgroup": "4:memory:/\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712"},
            None,
        ),
    ],
)
def test_the_smallest_memory_limit_of_the_groups_counts(
    tmp_path: Path, files: dict[str, str], limit: int | None
) -> None:
    assert memory_limit_bytes(write(tmp_path, files)) == limit
