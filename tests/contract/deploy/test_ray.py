"""What the overlays for KubeRay are there for, by what Ray and our own programs make of them."""

from __future__ import annotations

import argparse
import shlex
from typing import Any

import pytest

from tests.contract.deploy.clusters import Cluster, clusters
from tests.contract.deploy.policies.ray_operation import DRAIN_SECONDS
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
                "cpu": (4, 8, {"CPU": 1, "memory": 4 * GIB}),
                "gpu": (0, 8, {"CPU": 1, "GPU": 1, "memory": 8 * GIB}),
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


def test_every_replica_that_is_asked_for_at_least_finds_a_pod() -> None:
    """Two shards are what the number of pods is made for."""
    cluster = cluster_of("ray")
    bounds = {node.group: (node.entry["minReplicas"], node.entry["maxReplicas"]) for node in cluster.workers}
    (application,) = cluster.served["applications"]
    replicas = application["args"]["shard_replicas"], application["args"]["most_shard_replicas"]
    assert bounds["cpu"] == tuple(2 * count for count in replicas)
    (server,) = application["deployments"]
    assert bounds["server"][0] == server["num_replicas"]


def test_another_bundle_makes_another_cluster() -> None:
    """KubeRay makes one when the cluster's part changes; what Ray Serve is told would change within the old one."""
    configs, told = [], []
    for bundle in ("/models/products/head", "/models/products-2/head"):
        generator = {"name": "xmcserve-ray", "behavior": "merge", "literals": [f"XMC_BUNDLES={bundle}"]}
        release = Release(compose([K8S / "overlays" / "ray"], configMapGenerator=[generator]))
        (cluster,), (config,) = clusters(release), release.of_kind("ConfigMap")
        assert config["data"] == {"XMC_BUNDLES": bundle, "RAY_USAGE_STATS_ENABLED": "0"}
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
    assert before["gpu"] != before["cpu"]


def test_prometheus_asks_the_pods_that_answer_and_no_others() -> None:
    """A pod without a server would be one that does not answer, and an alert."""
    (monitor,) = Release(render("cpu+monitoring")).of_kind("PodMonitor")
    wanted = monitor["spec"]["selector"]["matchLabels"]
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    asked = {
        node.group
        for node in cluster_of("ray").workers
        # As KubeRay labels the pods of a group.
        if wanted.items() <= {**node.labels, "ray.io/group": node.group}.items()
    }
    assert asked == {"server"}
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
