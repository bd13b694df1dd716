from __future__ import annotations

import os
from pathlib import Path

import pytest

from service.processors import available_processors
from tests.service.cgroups import write

CORES = 8


@pytest.fixture(autouse=True)
def _eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(CORES)))


@pytest.mark.parametrize(
    ("quota", "processors"),
    [("max 100000", CORES), ("200000 100000", 2), ("150000 100000", 1), ("50000 100000", 1), ("1600000 100000", CORES)],
)
def test_the_quota_of_a_version_2_group_counts(tmp_path: Path, quota: str, processors: int) -> None:
    root = write(tmp_path, {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": f"{quota}\n"})
    assert available_processors(root) == processors


def test_the_smallest_quota_on_the_way_up_counts(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        {
            "proc/self/cgroup": "0::/pods/mine\n",
            "sys/fs/cgroup/pods/cpu.max": "300000 100000",
            "sys/fs/cgroup/pods/mine/cpu.max": "max 100000",
        },
    )
    assert available_processors(root) == 3


@pytest.mark.parametrize("hierarchy", ["cpu", "cpu,cpuacct"])
def test_the_quota_of_a_version_1_group_counts(tmp_path: Path, hierarchy: str) -> None:
    folder = f"sys/fs/cgroup/{hierarchy}/docker/abc"
    root = write(
        tmp_path,
        {
            "proc/self/cgroup": "5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n",
            f"{folder}/cpu.cfs_quota_us": "400000",
            f"{folder}/cpu.cfs_period_us": "100000",
        },
    )
    assert available_processors(root) == 4


def test_an_unlimited_version_1_group_sets_no_quota(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        {
            "proc/self/cgroup": "4:cpu:/\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
        },
    )
    assert available_processors(root) == CORES


def test_without_control_groups_the_affinity_counts(tmp_path: Path) -> None:
    assert available_processors(tmp_path) == CORES
