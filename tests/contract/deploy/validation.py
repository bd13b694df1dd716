"""Strict schemas for what is rendered: those of Kubernetes from a library, ours for kinds of other projects."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import kubernetes_validate
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from tests.contract.deploy.clusters import CLUSTER, Cluster, served
from tests.contract.deploy.release import PREDICTOR_FIELDS, at, mapping
from tests.contract.deploy.rendering import Manifest

SCHEMAS = Path(__file__).parents[1] / "schemas"
# The oldest with the preStop sleep that pods use, and the newest that the validator knows.
KUBERNETES_VERSIONS = ("1.30.0", kubernetes_validate.latest_version())
# What of the autoscaler's options is none of its container's.
AUTOSCALER_FIELDS = {"version", "upscalingMode", "idleTimeoutSeconds"}
OURS = sorted(file.stem for file in SCHEMAS.glob("*.json") if file.stem != "common")


@lru_cache
def validator(kind: str) -> Draft202012Validator:
    """The schema of a kind that is not Kubernetes's own."""
    contents = {file.name: json.loads(file.read_text(encoding="utf-8")) for file in SCHEMAS.glob("*.json")}
    registry = Registry().with_resources((name, Resource.from_contents(content)) for name, content in contents.items())
    return Draft202012Validator(contents[f"{kind}.json"], registry=registry)


def validate(manifest: Manifest, version: str) -> None:
    """Hold an object against the schema of its kind.

    Raises:
        Exception: of the library that finds a fault; an unknown kind is one.
    """
    kind = manifest["kind"]
    if kind not in OURS:
        kubernetes_validate.validate(manifest, version, strict=True)
        return
    validator(kind).validate(manifest)
    for spec in _pod_specs(manifest):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": spec}
        kubernetes_validate.validate(pod, version, strict=True)
    if kind == "RayService":
        validate_served(served(manifest))


def validate_served(config: Manifest) -> None:
    """Hold what Ray Serve is told against its own schema, which by itself lets pass what it does not know.

    Raises:
        ValueError: a value is wrong, or a field unknown.
    """
    # Not with the module: Ray Serve reads variables when it is imported, which tests of it set before.
    from ray.serve.schema import ServeDeploySchema

    known = ServeDeploySchema.model_validate(config).model_dump(exclude_unset=True)
    if unknown := sorted(_unknown(config, known)):
        raise ValueError(f"serveConfigV2: expected known fields, found {', '.join(unknown)}")


def _unknown(given: object, known: object, path: str = "") -> Iterator[str]:
    """The fields that a schema has dropped."""
    if isinstance(given, dict) and isinstance(known, dict):
        yield from (f"{path}{name}" for name in given.keys() - known.keys())
        for name in given.keys() & known.keys():
            yield from _unknown(given[name], known[name], f"{path}{name}.")
    if isinstance(given, list) and isinstance(known, list):
        for index, (inner, kept) in enumerate(zip(given, known, strict=True)):
            yield from _unknown(inner, kept, f"{path}{index}.")


def _pod_specs(manifest: Manifest) -> Iterator[Manifest]:
    """What of an object is the specification of pods, or a part of one."""
    if manifest["kind"] == "ServingRuntime":
        spec = mapping(manifest["spec"])
        yield {name: spec[name] for name in ("containers", "volumes", "nodeSelector", "tolerations") if name in spec}
    if manifest["kind"] == "InferenceService":
        predictor = mapping(at(manifest, "spec.predictor"))
        own = {name: value for name, value in predictor.items() if name not in PREDICTOR_FIELDS}
        yield own | {"containers": [{"name": "kserve-container"}]}
    if manifest["kind"] in CLUSTER:
        cluster = Cluster(manifest)
        yield from (node.spec for node in cluster.workers)
        # As KubeRay puts it beside the head's.
        autoscaler = {name: value for name, value in cluster.autoscaler.items() if name not in AUTOSCALER_FIELDS}
        containers = [*cluster.head.spec["containers"], autoscaler | {"name": "autoscaler"}]
        yield cluster.head.spec | {"containers": containers}
