"""The whole service as an application of Ray Serve."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ray import serve

from model_export.cli import main as export
from service.bundle import open_bundle
from service.distributed.application import SERVER, build
from service.engine import Engine
from service.errors import BundleError, SettingsError
from tests.bundles import Spec, write_bundle
from tests.service.serving import ask


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("application")
    write_bundle(folder / "whole", Spec(name="tags"))
    assert export(["shard", str(folder / "whole"), "--shards", "2", "--out", str(folder / "cut")]) == 0
    return folder


def test_it_answers_as_a_server_does(folder: Path, proxy: int, cluster: Any) -> None:
    head = folder / "cut" / "head"
    arguments = {"bundles": str(head), "ray": cluster.address, "device": "cpu", "threads": 1, "max_k": 9}
    serve.run(build(arguments), name="tags", route_prefix="/")
    try:
        whole = Engine.open(open_bundle(folder / "whole"), device="cpu")
        for query in whole.golden_queries:
            status, body, headers = ask(proxy, body=json.dumps({"queries": [query], "k": 5}).encode())
            assert status == 200, body
            labels = json.loads(body)["predictions"][0]["labels"]
            expected = whole.answer_alone(query, 5)
            assert [label["id"] for label in labels] == [found.label for found in expected]
            assert headers["server-timing"]
        status, body, headers = ask(proxy, body=json.dumps({"queries": ["a"], "k": 10}).encode())
        assert (status, headers["content-type"]) == (422, "application/problem+json")
        assert "k: expected at most 9, found 10" in json.loads(body)["detail"]
        assert ask(proxy, "/readyz")[0] == 200
        assert b"xmc_requests_total" in ask(proxy, "/metrics")[1]
        version = open_bundle(head).manifest.version
        found = serve.status().applications["tags"].deployments
        assert found.keys() == {SERVER, f"shard-0-{version}", f"shard-1-{version}"}
    finally:
        serve.delete("tags")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({}, "bundles: expected one for an application, found 0"),
        ({"bundle": "x"}, "expected names of settings, found bundle"),
        ({"bundles": "x", "max_k": "many"}, "--max-k must be a whole number, found 'many'"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, str], sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence):
        build(arguments)


def test_a_bundle_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="nothing"):
        build({"bundles": str(tmp_path / "nothing")})
