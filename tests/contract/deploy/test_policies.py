"""Every set keeps every promise, and no line of it can be lost without a policy that says so."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.deploy.mutations import FREE, HELD, mutations
from tests.contract.deploy.policies import POLICIES, faults
from tests.contract.deploy.release import Release
from tests.contract.deploy.rendering import K8S, SETS, Manifest, compose, render

pytestmark = pytest.mark.kubectl


@pytest.mark.parametrize("name", SETS)
def test_every_set_keeps_every_promise(name: str) -> None:
    assert faults(Release(render(name))) == []


@pytest.mark.parametrize("name", SETS)
def test_no_line_is_lost_unnoticed(name: str) -> None:
    """Each line of each object is taken away, and each value turned: at least one policy must say so."""
    unnoticed, count = [], 0
    for words, objects in mutations(render(name)):
        count += 1
        if not faults(Release(objects)):
            unnoticed.append(words)
    assert unnoticed == []
    assert count > 200


def test_a_new_line_that_no_policy_holds_is_named() -> None:
    objects = render("cpu")
    (deployment,) = (manifest for manifest in objects if manifest["kind"] == "Deployment")
    deployment["spec"]["template"]["spec"]["dnsPolicy"] = "Default"
    unnoticed = [words for words, changed in mutations(objects) if not faults(Release(changed))]
    place = "Deployment xmcserve: spec.template.spec.dnsPolicy"
    assert unnoticed == [f"{place} is gone", f"{place} is 'other'"]


POD = ("Deployment", "spec.template.spec")
CONTAINER = ("Deployment", "spec.template.spec.containers.0")
# What may be added to an object at a place: nothing of it is there now.
WEAKENINGS: list[tuple[tuple[str, str], Any]] = [
    (POD, {"hostNetwork": True}),
    (POD, {"hostPID": True}),
    (POD, {"hostIPC": True}),
    (POD, {"hostUsers": True}),
    (POD, {"shareProcessNamespace": True}),
    (POD, {"tolerations": [{"operator": "Exists"}]}),
    (("Deployment", "spec.template.spec.containers"), {"name": "sidecar", "image": "sidecar"}),
    (("Deployment", "spec.template.spec.volumes"), {"name": "node", "hostPath": {"path": "/"}}),
    (("Deployment", "spec.template.spec.volumes"), {"name": "room", "emptyDir": {}}),
    (("Deployment", "spec.template.spec.securityContext"), {"fsGroup": 0}),
    ((CONTAINER[0], f"{CONTAINER[1]}.ports.0"), {"hostPort": 80}),
    ((CONTAINER[0], f"{CONTAINER[1]}.securityContext"), {"runAsUser": 0}),
    ((CONTAINER[0], f"{CONTAINER[1]}.securityContext.capabilities"), {"add": ["NET_ADMIN"]}),
    ((CONTAINER[0], f"{CONTAINER[1]}.resources.limits"), {"cpu": "2"}),
    ((CONTAINER[0], f"{CONTAINER[1]}.resources.limits"), {"nvidia.com/gpu": "1"}),
    ((CONTAINER[0], f"{CONTAINER[1]}.env"), {"name": "XMC_UNKNOWN", "value": "1"}),
    ((CONTAINER[0], f"{CONTAINER[1]}.volumeMounts"), {"name": "tmp", "mountPath": "/var"}),
    (("Service", "spec"), {"type": "LoadBalancer"}),
    (("Service", "spec.ports"), {"name": "more", "port": 1, "targetPort": 1}),
    (("NetworkPolicy", "spec"), {"egress": [{}]}),
    (("NetworkPolicy", "spec.ingress"), {}),
    (("NetworkPolicy", "spec.ingress.0.from"), {"ipBlock": {"cidr": "0.0.0.0/0"}}),
]


@pytest.mark.parametrize(("place", "addition"), WEAKENINGS, ids=str)
def test_what_weakens_is_noticed(place: tuple[str, str], addition: Any) -> None:
    assert faults(Release(weakened("cpu", place, addition)))


CLUSTER = "spec.rayClusterConfig"
HEAD = f"{CLUSTER}.headGroupSpec"
WORKER = f"{CLUSTER}.workerGroupSpecs.2"
RAY_WEAKENINGS: list[tuple[tuple[str, str], Any]] = [
    (("RayService", "spec"), {"suspend": True}),
    (("RayService", CLUSTER), {"gcsFaultToleranceOptions": {"redisAddress": "redis:6379"}}),
    (("RayService", f"{CLUSTER}.authOptions"), {"secretName": "known"}),
    (("RayService", f"{CLUSTER}.autoscalerOptions"), {"image": "other"}),
    (("RayService", f"{CLUSTER}.autoscalerOptions.volumeMounts"), {"name": "models", "mountPath": "/models"}),
    (("RayService", HEAD), {"serviceType": "LoadBalancer"}),
    (("RayService", f"{HEAD}.rayStartParams"), {"dashboard-port": "80"}),
    (("RayService", f"{HEAD}.template.spec"), {"hostNetwork": True}),
    (("RayService", f"{HEAD}.template.spec.volumes"), {"name": "node", "hostPath": {"path": "/"}}),
    (
        ("RayService", f"{HEAD}.template.spec.containers.0.volumeMounts"),
        {"name": "api-token", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"},
    ),
    (("RayService", f"{CLUSTER}.workerGroupSpecs"), {"groupName": "more", "minReplicas": 0, "maxReplicas": 1}),
    (("RayService", f"{WORKER}.rayStartParams"), {"resources": "'{\"server\": 1}'"}),
    (("RayService", f"{WORKER}.template.spec"), {"initContainers": [{"name": "more", "image": "other"}]}),
    (("RayService", f"{WORKER}.template.spec"), {"tolerations": [{"operator": "Exists"}]}),
    (("RayService", f"{WORKER}.template.spec.containers"), {"name": "sidecar", "image": "sidecar"}),
    (("RayService", f"{WORKER}.template.spec.containers.0"), {"command": ["sleep"]}),
    (("RayService", f"{WORKER}.template.spec.containers.0"), {"env": [{"name": "XMC_UNKNOWN", "value": "1"}]}),
    (("RayService", f"{WORKER}.template.spec.containers.0.resources.limits"), {"cpu": "2"}),
    (("RayService", f"{WORKER}.template.spec.securityContext"), {"fsGroup": 0}),
    (("ConfigMap", "data"), {"XMC_BUNDLES": "/elsewhere/head"}),
    (("ConfigMap", "data"), {"XMC_UNKNOWN": "1"}),
    (("NetworkPolicy", "spec"), {"ingress": [{}]}),
    (("PodDisruptionBudget", "spec"), {"minAvailable": 0}),
]


@pytest.mark.parametrize(("place", "addition"), RAY_WEAKENINGS, ids=str)
def test_what_weakens_a_ray_cluster_is_noticed(place: tuple[str, str], addition: Any) -> None:
    assert faults(Release(weakened("ray", place, addition)))


@pytest.mark.parametrize(
    ("line", "other"),
    [
        ("most_shard_replicas: 4", "most_shard_replicas: 2"),
        ("most_shard_replicas: 4", "most_shard_replicas: 4\n      bundles: /models/products/head"),
        ("route_prefix: /\n", "route_prefix: /\n    runtime_env: {}\n"),
        ("applications:", "http_options: {port: 80}\napplications:"),
        ("applications:", "{"),
    ],
)
def test_what_ray_serve_is_told_is_held_as_well(line: str, other: str) -> None:
    objects = render("ray")
    (service,) = (manifest for manifest in objects if manifest["kind"] == "RayService")
    told = service["spec"]["serveConfigV2"]
    assert line in told
    service["spec"]["serveConfigV2"] = told.replace(line, other)
    assert any(fault.startswith("ray_serves_our_application:") for fault in faults(Release(objects)))


def test_every_policy_notices_something() -> None:
    """One that never does would be no policy."""
    names = ("prod", "kserve", "cpu+canary", "gpu+fetch+keda", "ray", "ray-training")
    changed = [objects for name in names for _, objects in mutations(render(name))]
    changed += [weakened("cpu", *weakening) for weakening in WEAKENINGS]
    assert {fault.partition(":")[0] for objects in changed for fault in faults(Release(objects))} == set(POLICIES)


def weakened(name: str, place: tuple[str, str], addition: Any) -> list[Manifest]:
    """The objects of a set with something more in one place of the first object that has it."""
    objects = render(name)
    for manifest in objects:
        holder: Any = manifest
        for step in place[1].split("."):
            if holder is not None:
                holder = holder[int(step)] if isinstance(holder, list) else holder.get(step)
        if manifest["kind"] == place[0] and holder is not None:
            holder.append(addition) if isinstance(holder, list) else holder.update(addition)
            return objects
    raise AssertionError(f"expected {place}")


def test_autoscalers_exclude_each_other() -> None:
    components = [K8S / "components" / name for name in ("hpa", "keda")]
    objects = compose([K8S / "overlays" / "cpu"], components)
    assert faults(Release(objects)) == ["one_decides: expected one autoscaler, found several"]


@pytest.mark.parametrize("name", SETS)
def test_every_kind_is_held_or_free(name: str) -> None:
    assert {manifest["kind"] for manifest in render(name)} <= set(HELD) | FREE
