"""Whether a Ray cluster is where settings say; nothing here is one, but something listens."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from service.doctor import cluster
from service.doctor.context import Context
from service.doctor.findings import State


@pytest.fixture
def address() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def state(ray: str, environment: Mapping[str, str] | None = None) -> State:
    (found,) = cluster.look(Context.of({"ray": ray}, environment or {}))
    return found.state


def test_without_a_cluster_there_is_nothing_to_look_at() -> None:
    assert list(cluster.look(Context.of({}, {}))) == []
    assert state("local") is State.OK


def test_a_cluster_is_there_where_something_listens(address: str) -> None:
    assert state(address) is State.OK
    for nowhere in ("127.0.0.1:1", "127.0.0.1:many", "127.0.0.1:99999"):
        assert state(nowhere) is State.FAULT


@pytest.mark.parametrize("variable", ["RAY_TMPDIR", "TMPDIR"])
def test_the_cluster_of_this_machine_is_found_as_ray_does(address: str, tmp_path: Path, variable: str) -> None:
    environment = {variable: str(tmp_path)}
    assert state("auto", environment) is State.FAULT
    assert state("auto", environment | {"RAY_ADDRESS": address}) is State.OK
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text(address)
    for unsaid in ({}, {"RAY_ADDRESS": ""}, {"RAY_ADDRESS": "auto"}):
        assert state("auto", environment | unsaid) is State.OK
