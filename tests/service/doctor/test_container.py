"""Limits of a container, as control groups say them: here under a root that was made for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.doctor import memory, processors
from service.doctor.context import Context
from service.doctor.findings import Finding, State
from service.planning.constants import load
from tests.bundles import write_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundles") / "tiny"
    write_bundle(path)
    return path


def container(root: Path, **limits: str) -> Path:
    """A root with a control group of version 2."""
    group = root / "sys" / "fs" / "cgroup"
    group.mkdir(parents=True)
    (root / "proc" / "self").mkdir(parents=True)
    (root / "proc" / "self" / "cgroup").write_text("0::/\n")
    for name, limit in limits.items():
        (group / f"{name}.max").write_text(limit)
    return root


def faults(findings: list[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.state is State.FAULT]


def test_a_limit_below_what_bundles_take_is_named(tmp_path: Path, bundle: Path) -> None:
    limit = round(memory.processes_bytes(1)) - 10_000_000
    root = container(tmp_path, memory=str(limit))
    (found,) = faults(list(memory.look(Context.of({"bundles": str(bundle)}, {}, root))))
    needed = f"{memory.processes_bytes(1) / 1e6:,.0f} MB"
    assert found.found.startswith(f"bundles (0 MB) and processes (2) take about {needed}, found a limit of ")
    assert found.found.endswith(f"a limit of {limit / 1e6:,.0f} MB")
    assert f"raise the container's memory limit above {needed}" in found.advice


def test_processes_take_what_plans_say() -> None:
    constants = load().memory
    one = constants.model.of(dict.fromkeys(constants.model.costs, 0.0)) + constants.model_code
    assert memory.processes_bytes(0) == constants.http + constants.http_code
    assert memory.processes_bytes(3) - memory.processes_bytes(1) == pytest.approx(2 * one)


def test_files_of_shards_count(tmp_path: Path) -> None:
    root, head = container(tmp_path / "root", memory=str(400 << 20)), tmp_path / "head"
    head.mkdir()
    (head / "manifest.json").write_text('{"shards": [{"folder": "shard-0"}]}')
    (tmp_path / "shard-0").mkdir()
    with (tmp_path / "shard-0" / "buckets.npy").open("wb") as file:
        file.truncate(300 << 20)
    (found,) = faults(list(memory.look(Context.of({"bundles": str(head)}, {}, root))))
    assert "bundles (315 MB)" in found.found
    # A cluster's nodes hold them.
    assert not faults(list(memory.look(Context.of({"bundles": str(head), "ray": "auto"}, {}, root))))


def test_files_of_bundles_count(tmp_path: Path, bundle: Path) -> None:
    root = container(tmp_path / "root", memory=str(400 << 20))
    large = tmp_path / "large"
    large.mkdir()
    with (large / "vectors.npy").open("wb") as file:
        file.truncate(300 << 20)
    assert not faults(list(memory.look(Context.of({"bundles": str(bundle)}, {}, root))))
    (found,) = faults(list(memory.look(Context.of({"bundles": str(large)}, {}, root))))
    assert "bundles (315 MB)" in found.found


def test_a_group_without_a_limit_has_the_machines_memory(tmp_path: Path) -> None:
    (found,) = memory.look(Context.of({}, {}, container(tmp_path, memory="max")))
    assert found.state is State.OK
    assert "of the machine" in found.found


@pytest.mark.parametrize("setting", ["threads", "runners"])
def test_more_threads_than_the_quota_are_named(tmp_path: Path, setting: str) -> None:
    root = container(tmp_path, cpu="100000 100000")
    settings = {"threads": "1", setting: "2"}
    (found,) = faults(list(processors.look(Context.of(settings, {}, root))))
    assert found.subject == f"XMC_{setting.upper()}"
    assert found.found == "expected at most 1, the processors that may be used at once, found 2"
    assert "raise the container's CPU limit" in found.advice
