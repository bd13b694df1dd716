"""Everything in ``k8s/`` renders, and what is rendered is valid by strict schemas."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator, ValidationError
from kubernetes_validate import ValidationError as KubernetesError

from tests.contract.deploy.rendering import K8S, SETS, Manifest, compose, render
from tests.contract.deploy.validation import KUBERNETES_VERSIONS, OURS, SCHEMAS, validate, validator

_POD = {"serviceAccountName": "x", "containers": [{"name": "ray", "env": [{"name": "A", "value": "b"}]}]}
_TEMPLATE = {"metadata": {"labels": {"a": "b"}, "annotations": {"a": "b"}}, "spec": _POD}
_CLUSTER = {
    "rayVersion": "2.60.0",
    "authOptions": {"mode": "token"},
    "autoscalerOptions": {"version": "v2", "resources": {"limits": {"memory": "1Gi"}}},
    "gcsFaultToleranceOptions": {"redisAddress": "redis:6379"},
    "headGroupSpec": {"rayStartParams": {"num-cpus": "0"}, "template": _TEMPLATE},
    "workerGroupSpecs": [
        {"groupName": "cpu", "minReplicas": 1, "maxReplicas": 2, "rayStartParams": {"a": "b"}, "template": _TEMPLATE}
    ],
}
# Of kinds that may come with components; each is valid, and everything in it is needed.
EXAMPLES: dict[str, Manifest] = {
    "RayService": {
        "apiVersion": "ray.io/v1",
        "kind": "RayService",
        "metadata": {"name": "xmcserve"},
        "spec": {
            "upgradeStrategy": {"type": "NewCluster"},
            "serveConfigV2": "applications: []",
            "rayClusterConfig": _CLUSTER,
        },
    },
    "RayJob": {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {"name": "xmcserve"},
        "spec": {"entrypoint": "xmc-train", "rayClusterSpec": _CLUSTER},
    },
    "ServiceMonitor": {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "ServiceMonitor",
        "metadata": {"name": "xmcserve", "labels": {"release": "prometheus"}},
        "spec": {
            "selector": {"matchLabels": {"app.kubernetes.io/name": "xmcserve"}},
            "endpoints": [{"port": "metrics", "interval": "15s", "relabelings": [{"action": "keep", "regex": "x"}]}],
        },
    },
    "PodMonitor": {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PodMonitor",
        "metadata": {"name": "xmcserve"},
        "spec": {"selector": {"matchLabels": {"app": "x"}}, "podMetricsEndpoints": [{"port": "metrics"}]},
    },
    "PrometheusRule": {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "xmcserve"},
        "spec": {
            "groups": [
                {
                    "name": "xmcserve",
                    "interval": "1m30s",
                    "rules": [
                        {"record": "xmc:p99", "expr": "vector(1)", "labels": {"a": "b"}},
                        {"alert": "Down", "expr": "up == 0", "for": "5m", "annotations": {"summary": "s"}},
                    ],
                }
            ]
        },
    },
}


@pytest.mark.kubectl
@pytest.mark.parametrize("version", KUBERNETES_VERSIONS)
@pytest.mark.parametrize("name", SETS)
def test_every_object_of_every_set_is_valid(name: str, version: str) -> None:
    for manifest in render(name):
        validate(manifest, version)


@pytest.mark.kubectl
@pytest.mark.parametrize("folder", ["base", "ray"])
def test_what_overlays_share_is_valid(folder: str) -> None:
    for manifest in compose([K8S / folder]):
        validate(manifest, KUBERNETES_VERSIONS[0])


@pytest.mark.kubectl
@pytest.mark.parametrize("name", SETS)
def test_no_object_is_there_twice(name: str) -> None:
    found = [(manifest["kind"], manifest["metadata"]["name"]) for manifest in render(name)]
    assert len(found) == len(set(found))


@pytest.mark.parametrize("kind", OURS)
def test_a_schema_is_one_and_is_named_by_its_kind(kind: str) -> None:
    schema = json.loads((SCHEMAS / f"{kind}.json").read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    assert schema["properties"]["kind"] == {"const": kind}
    assert schema["$comment"], "expected where its fields were looked up"


@pytest.mark.parametrize("kind", EXAMPLES)
def test_the_schemas_take_what_is_right_and_nothing_that_they_do_not_know(kind: str) -> None:
    validate(EXAMPLES[kind], KUBERNETES_VERSIONS[0])
    require_strictness(EXAMPLES[kind])


@pytest.mark.kubectl
@pytest.mark.parametrize("name", ["kserve", "cpu+canary", "cpu+keda"])
def test_no_field_that_is_unknown_is_valid_anywhere(name: str) -> None:
    manifests = [manifest for manifest in render(name) if manifest["kind"] in OURS]
    assert manifests
    for manifest in manifests:
        require_strictness(manifest)


def require_strictness(manifest: Manifest) -> None:
    """An unknown field is refused wherever it stands, and among labels a value of the wrong type."""
    for place in places(manifest):
        changed = copy.deepcopy(manifest)
        inner: Any = changed
        for step in place:
            inner = inner[step]
        inner["unknown"] = ["x"]
        with pytest.raises((ValidationError, KubernetesError)):
            validate(changed, KUBERNETES_VERSIONS[0])


def places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Where there are mappings."""
    if isinstance(value, dict):
        yield path
    entries: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, inner in entries:
        yield from places(inner, (*path, step))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "endpoints", 0, "interval"), "15"),
        (("spec", "endpoints", 0, "port"), 9090),
        (("spec", "endpoints"), []),
        (("apiVersion",), "monitoring.coreos.com/v1beta1"),
        (("metadata", "name"), "Not A Name"),
    ],
)
def test_wrong_values_are_refused(path: tuple[str | int, ...], value: object) -> None:
    changed: Any = copy.deepcopy(EXAMPLES["ServiceMonitor"])
    inner = changed
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    with pytest.raises(ValidationError):
        validator("ServiceMonitor").validate(changed)


@pytest.mark.kubectl
@pytest.mark.parametrize(
    ("line", "other", "said"),
    [
        ("service.distributed.application:build", "application", "import_path"),
        ("num_cpus: 0", "num_cpus: -1", "num_cpus"),
        ("num_replicas: 2", "num_replicas: none", "num_replicas"),
        ("applications:", "unknown: 1\napplications:", "expected known fields, found unknown"),
        ("num_replicas: 2", "replicas: 2", "expected known fields, found applications.0.deployments.0.replicas"),
        ("num_cpus: 0", "cpus: 0", "expected known fields, found applications.0.deployments.0.ray_actor_options.cpus"),
    ],
)
def test_what_ray_serve_is_told_is_held_against_its_own_schema(line: str, other: str, said: str) -> None:
    (service,) = (manifest for manifest in render("ray") if manifest["kind"] == "RayService")
    told = service["spec"]["serveConfigV2"]
    assert line in told
    service["spec"]["serveConfigV2"] = told.replace(line, other)
    with pytest.raises(ValueError, match=said):
        validate(service, KUBERNETES_VERSIONS[0])
