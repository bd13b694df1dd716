"""A server whose shards are on a real cluster of Ray: what it answers, also while shards, versions and nodes go."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ray import serve
from ray.cluster_utils import Cluster
from ray.serve.context import _get_global_client

from model_export.cli import main as export
from service.access.keys import line_of
from service.bundle import open_bundle
from service.distributed.deployments import bound, deployment_name
from service.engine import Engine
from service.models.queries import Query
from service.settings import Settings
from service.sharding.deferred import MOST_SENT_BYTES
from tests.bundles import Method, Spec, write_bundle
from tests.ray_nodes import have_nodes
from tests.service.distributed.conftest import PROCESSORS
from tests.service.models.test_swaps import SECRET, admin
from tests.service.serving import Process, ask, running

METHODS: tuple[Method, ...] = ("mach", "declare", "unidec")
# MACH whose shards encode: a query's bucket scores are more than is sent.
WIDE = "mach-wide"
MODELS = (*METHODS, WIDE)
SHARDS = 2
# Of a batch whose bucket scores are 8 MB, twice what gRPC takes unless it is told otherwise.
MANY = 128
K = 7
GONE = "does not answer"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bundles of all methods, and a second version of the first, each cut into shards."""
    folder = tmp_path_factory.mktemp("sharded")
    specs = {method: Spec(name=method, method=method) for method in METHODS}
    most = MOST_SENT_BYTES // (4 * Spec.repetitions)
    specs["mach"] = Spec(name="mach", buckets=most)
    specs["mach-later"] = Spec(name="mach", seed=1)
    specs[WIDE] = Spec(name=WIDE, buckets=most + 1)
    for name, spec in specs.items():
        write_bundle(folder / "whole" / name, spec)
        whole, out = str(folder / "whole" / name), str(folder / "cut" / name)
        assert export(["shard", whole, "--shards", str(SHARDS), "--out", out]) == 0
    (folder / "keys").write_text(line_of("root", SECRET, ()))
    return folder


@pytest.fixture(scope="module")
def server(folder: Path, proxy: int, cluster: Cluster) -> Iterator[Process]:
    del proxy
    arguments = ["--models-dir", folder / "cut", "--admin-keys-file", folder / "keys", "--ray", cluster.address]
    for limit in ("--max-batch-rows", "--max-queries", "--queue-rows"):
        arguments += [limit, str(MANY)]
    for model in MODELS:
        arguments += ["--bundle", folder / "cut" / model / "head"]
    with running(*arguments) as process:
        yield process
        assert process.stop() == 0
    while serve.status().applications:
        time.sleep(0.1)


def queries(folder: Path) -> list[Query]:
    return Engine.open(open_bundle(folder / "whole" / "mach"), device="cpu").golden_queries


def labels_of(engine: Engine, query: Query) -> list[tuple[str, float]]:
    return [(found.label, pytest.approx(found.score, abs=1e-5)) for found in engine.answer_alone(query, K)]


def predict(server: Process, model: str, query: Query, **wishes: object) -> tuple[int, Any]:
    body = {"model": model, "queries": [query], "k": K} | wishes
    status, answer, _ = ask(server.port, body=json.dumps(body).encode())
    return status, json.loads(answer)


def labels_in(answer: Any) -> list[tuple[str, float]]:
    (prediction,) = answer["predictions"]
    return [(label["id"], label["score"]) for label in prediction["labels"]]


@pytest.mark.parametrize("model", MODELS)
def test_answers_are_those_of_the_whole_bundle(server: Process, folder: Path, model: str) -> None:
    engine = Engine.open(open_bundle(folder / "whole" / model), device="cpu")
    for query in queries(folder):
        status, answer = predict(server, model, query)
        assert status == 200
        assert labels_in(answer) == labels_of(engine, query)
        assert answer["predictions"][0].keys() == {"labels"}
        status, some = predict(server, model, query, filter={"deny": [labels_in(answer)[0][0]]}, explain=True)
        assert status == 200
        assert labels_in(some)[: K - 1] == labels_in(answer)[1:]
        assert all(label["explanation"] for label in some["predictions"][0]["labels"])


def test_a_batch_may_be_large(server: Process, folder: Path) -> None:
    engine = Engine.open(open_bundle(folder / "whole" / "mach"), device="cpu")
    asked = (queries(folder) * MANY)[:MANY]
    body = {"model": "mach", "queries": asked, "k": K}
    status, answer, _ = ask(server.port, body=json.dumps(body).encode())
    assert status == 200
    for query, prediction in zip(asked, json.loads(answer)["predictions"], strict=True):
        assert labels_in({"predictions": [prediction]}) == labels_of(engine, query)


@contextmanager
def asking(
    server: Process, asked: Sequence[Query], models: Sequence[str]
) -> Iterator[list[tuple[str, Query, int, Any]]]:
    """Ask all the time, until the block is left; answers are put into the list."""
    answers: list[tuple[str, Query, int, Any]] = []
    stop = threading.Event()

    def work(model: str) -> None:
        while not stop.is_set():
            for query in asked:
                answers.append((model, query, *predict(server, model, query)))

    threads = [threading.Thread(target=work, args=(model,)) for model in models]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_a_shard_without_replicas_is_named_and_never_left_out_unasked(server: Process, folder: Path) -> None:
    head = open_bundle(folder / "cut" / "unidec" / "head")
    whole = Engine.open(open_bundle(folder / "whole" / "unidec"), device="cpu")
    (query, *_), entry = queries(folder), head.manifest.shards[1]
    deployment = deployment_name(head.manifest, entry)
    (name,) = (name for name, one in serve.status().applications.items() if deployment in one.deployments)
    serve.delete(name)
    status, problem = predict(server, "unidec", query)
    assert (status, problem["title"]) == (503, "Shard unavailable")
    assert f"shard-1 {GONE}" in problem["detail"]
    others = {whole.labels.id(row) for row in range(entry.first)}
    status, answer = predict(server, "unidec", query, partial=True)
    assert status == 200
    assert answer["predictions"][0]["partial"] is True
    found = labels_in(answer)
    best = [one for one in labels_of_all(whole, query) if one[0] in others]
    assert found == best[:K]
    # What needs the missing shard cannot be had in part.
    wanted = whole.labels.id(entry.first)
    status, problem = predict(server, "unidec", query, partial=True, filter={"allow": [wanted]})
    assert status == 503
    assert predict(server, "mach", query)[0] == 200
    application = bound(head.path, head.manifest, entry, Settings())
    serve.run(application, name=name, route_prefix=None)
    while predict(server, "unidec", query)[0] != 200:
        time.sleep(0.1)
    status, answer = predict(server, "unidec", query, partial=True)
    assert labels_in(answer) == labels_of(whole, query)
    assert "partial" not in answer["predictions"][0]


def labels_of_all(engine: Engine, query: Query) -> list[tuple[str, float]]:
    found = engine.answer_alone(query, engine.manifest.label_count)
    return [(one.label, pytest.approx(one.score, abs=1e-5)) for one in found]


def nodes_of_replicas() -> set[str | None]:
    """Where replicas are; None for those that are not ready."""
    details = _get_global_client().get_serve_details()
    return {
        replica["node_id"] if replica["state"] == "RUNNING" else None
        for application in details["applications"].values()
        for deployment in application["deployments"].values()
        for replica in deployment["replicas"] or [{"state": "missing"}]
    }


def test_a_node_dies_under_load(server: Process, folder: Path, cluster: Cluster) -> None:
    """No answer is wrong; who is not answered hears which shard is missing; replicas come back by themselves."""
    engines = {name: Engine.open(open_bundle(folder / "whole" / name), device="cpu") for name in METHODS}
    asked = queries(folder)
    expected = {(name, str(query)): labels_of(engine, query) for name, engine in engines.items() for query in asked}
    _, node, *_ = cluster.list_all_nodes()
    assert node.node_id in nodes_of_replicas()
    with asking(server, asked, METHODS) as answers:
        have_nodes(cluster, 4, num_cpus=PROCESSORS)
        cluster.remove_node(node, allow_graceful=False)
        while node.node_id in (nodes := nodes_of_replicas()) or None in nodes:
            time.sleep(0.1)
        while any(predict(server, name, query)[0] != 200 for name in METHODS for query in asked):
            time.sleep(0.1)
    for model, query, status, answer in answers:
        if status == 200:
            assert labels_in(answer) == expected[model, str(query)]
            assert "partial" not in answer["predictions"][0]
        else:
            assert (status, answer["title"]) == (503, "Shard unavailable")
            assert answer["detail"].startswith("shard-")


def test_a_swap_shows_each_request_one_version(server: Process, folder: Path) -> None:
    engines = [Engine.open(open_bundle(folder / "whole" / name), device="cpu") for name in ("mach", "mach-later")]
    asked = queries(folder)
    expected = {
        engine.manifest.version: {str(query): labels_of(engine, query) for query in asked} for engine in engines
    }
    by_head = {
        open_bundle(folder / "cut" / name / "head").manifest.version: engine.manifest.version
        for name, engine in zip(("mach", "mach-later"), engines, strict=True)
    }
    with asking(server, asked, ["mach"]) as answers:
        load = admin(server, "/admin/models", {"bundle": "mach-later"})["load"]
        while (state := admin(server, f"/admin/loads/{load}"))["state"] in ("waiting", "loading"):
            time.sleep(0.1)
        assert state["state"] == "serving", state
    assert {status for _, _, status, _ in answers} == {200}
    seen = set()
    for _, query, _, answer in answers:
        version = by_head[answer["version"]]
        seen.add(version)
        assert labels_in(answer) == expected[version][str(query)]
    assert seen == expected.keys()
    before = open_bundle(folder / "cut" / "mach" / "head").manifest.version
    while any(before in name for name in serve.status().applications):
        time.sleep(0.1)
