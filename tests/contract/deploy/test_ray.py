"""What the overlays for KubeRay are there for, by what Ray and our own programs make of them."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import Any

import pytest

from model_export.cli import main as export
from tests.bundles import Spec, write_bundle
from tests.contract.deploy.clusters import Cluster, clusters
from tests.contract.deploy.policies.ray_operation import DRAIN_SECONDS
from tests.contract.deploy.policies.ray_pods import size_bytes
from tests.contract.deploy.release import Release, at
from tests.contract.deploy.rendering import K8S, compose, render
from training.cli import main as train
from training.commands import COMMANDS
from training.recipes import RECIPES

pytestmark = pytest.mark.kubectl

GIB = 2**30


def cluster_of(name: str) -> Cluster:
    (cluster,) = clusters(Release(render(name)))
    return cluster


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "ray",
            {
                "headgroup": (0, 0, {"CPU": 0, "memory": 4 * GIB}),
                "server": (2, 4, {"CPU": 0, "memory": 4 * GIB, "server": 1}),
                "server-gpu": (0, 4, {"CPU": 0, "GPU": 1, "memory": 8 * GIB}),
                "shard": (4, 8, {"CPU": 2, "memory": 4 * GIB}),
            },
        ),
        (
            "ray-training",
            {
                "headgroup": (0, 0, {"CPU": 0, "memory": 16 * GIB}),
                "cpu": (1, 8, {"CPU": 8, "memory": 32 * GIB}),
                "gpu": (0, 4, {"CPU": 4, "GPU": 1, "memory": 32 * GIB}),
            },
        ),
    ],
)
def test_rays_autoscaler_reads_what_is_meant(name: str, expected: dict[str, Any]) -> None:
    """By the code that runs in the container beside the head."""
    from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

    created = {"metadata": {"name": "x", "namespace": "x"}, "spec": cluster_of(name).spec}
    config = _derive_autoscaling_config_from_ray_cr(created)
    groups = {
        group: (found["min_workers"], found["max_workers"], found["resources"])
        for group, found in config["available_node_types"].items()
    }
    assert groups == expected
    assert config["idle_timeout_minutes"] == 5


@pytest.mark.parametrize("name", ["ray", "ray-gpu"])
def test_every_replica_that_is_asked_for_finds_a_pod(name: str) -> None:
    """Two shards are what the number of pods is made for."""
    cluster = cluster_of(name)
    bounds = {node.group: (node.entry["minReplicas"], node.entry["maxReplicas"]) for node in cluster.workers}
    (application,) = cluster.served["applications"]
    replicas = application["args"]["shard_replicas"], application["args"]["most_shard_replicas"]
    assert bounds["shard"] == tuple(2 * count for count in replicas)
    (server,) = application["deployments"]
    assert bounds[cluster.servers.group][0] == server["num_replicas"]


def test_servers_on_gpus_ask_for_them() -> None:
    on_cpus, on_gpus = cluster_of("ray"), cluster_of("ray-gpu")
    assert (on_cpus.servers.group, on_gpus.servers.group) == ("server", "server-gpu")
    (config,) = Release(render("ray-gpu")).of_kind("ConfigMap")
    assert config["data"]["XMC_DEVICE"] == "cuda"


def test_the_application_asks_for_what_pods_offer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put together by the code itself, of a bundle in two shards, with what pods are told."""
    from ray.serve._private.build_app import build_app

    from service.distributed.application import build

    write_bundle(tmp_path / "whole", Spec(name="tags"))
    assert export(["shard", str(tmp_path / "whole"), "--shards", "2", "--out", str(tmp_path / "products")]) == 0
    release = Release(render("ray"))
    (cluster,), (config,) = clusters(release), release.of_kind("ConfigMap")
    for name, value in config["data"].items():
        monkeypatch.setenv(name, value.replace("/models", str(tmp_path)))
    (application,) = cluster.served["applications"]
    built = build_app(build(application["args"]), name=application["name"])
    asked = {deployment.name: deployment.ray_actor_options or {} for deployment in built.deployments}
    named = {deployment["name"] for deployment in application["deployments"]}
    shards = asked.keys() - named
    assert named < asked.keys()
    assert len(shards) == 2
    for shard in shards:
        assert str(asked[shard]["num_cpus"]) == cluster.shards.parameters["num-cpus"]
        assert asked[shard]["memory"] < size_bytes(cluster.shards.ray["resources"]["limits"]["memory"])


def test_another_bundle_makes_another_cluster() -> None:
    """KubeRay makes one when the cluster's part changes; what Ray Serve is told would change within the old one."""
    configs, told = [], []
    for bundle in ("/models/products/head", "/models/products-2/head"):
        generator = {"name": "xmcserve-ray", "behavior": "merge", "literals": [f"XMC_BUNDLES={bundle}"]}
        release = Release(compose([K8S / "overlays" / "ray"], configMapGenerator=[generator]))
        (cluster,), (config,) = clusters(release), release.of_kind("ConfigMap")
        assert config["data"]["XMC_BUNDLES"] == bundle
        assert len(config["data"]) > 1
        names = {node.ray["envFrom"][0]["configMapRef"]["name"] for node in cluster.nodes}
        assert names == {config["metadata"]["name"]}
        configs.append(cluster.spec)
        told.append(cluster.served)
    assert configs[0] != configs[1]
    assert told[0] == told[1]


def test_a_registry_is_named_once_for_both_devices() -> None:
    images = [{"name": "xmcserve", "newName": "registry.example/xmcserve"}]
    (cluster,) = clusters(Release(compose([K8S / "overlays" / "ray"], images=images)))
    before = {node.group: node.ray["image"] for node in cluster_of("ray").nodes}
    assert {node.group: node.ray["image"] for node in cluster.nodes} == {
        group: f"registry.example/{image}" for group, image in before.items()
    }
    assert before["server-gpu"] != before["server"]


def test_prometheus_asks_the_pods_that_answer_and_no_others() -> None:
    """A pod without a server would be one that does not answer, and an alert."""
    (monitor,) = Release(render("cpu+monitoring")).of_kind("PodMonitor")
    selector = monitor["spec"]["selector"]
    (groups,) = selector["matchExpressions"]
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    asked = {
        node.group
        for node in cluster_of("ray").workers
        if selector["matchLabels"].items() <= node.labels.items() and node.group in groups["values"]
    }
    # By which KubeRay labels the pods of a group.
    assert (groups["key"], groups["operator"]) == ("ray.io/group", "In")
    assert asked == {"server", "server-gpu"}
    offering = {
        node.group
        for node in cluster_of("ray").nodes
        if endpoint["port"] in [port["name"] for port in node.ray.get("ports", [])]
    }
    assert offering == asked


def test_the_run_is_one_that_training_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The manifest's own words, as the command takes them."""
    taken: list[argparse.Namespace] = []
    monkeypatch.setitem(COMMANDS, "fit", taken.append)
    program, *words = shlex.split(str(at(cluster_of("ray-training").manifest, "spec.entrypoint")))
    assert program == "xmc-train"
    assert train(words) == 0
    (arguments,) = taken
    assert arguments.recipe in RECIPES
    assert (arguments.ray, arguments.resume) == ("auto", True)


def test_ray_is_asked_where_it_needs_no_token() -> None:
    """The kubelet has none."""
    from ray.dashboard.http_server_agent import PUBLIC_EXACT_PATHS

    for name in ("ray", "ray-training"):
        paths = {node.ray["livenessProbe"]["httpGet"]["path"] for node in cluster_of(name).nodes}
        assert paths <= set(PUBLIC_EXACT_PATHS)


def test_ray_drains_a_pod_as_long_as_pods_are_given() -> None:
    from ray._private.ray_constants import RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S

    assert DRAIN_SECONDS == RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S
