"""Strict schemas for what is rendered: those of Kubernetes from a library, ours for kinds of other projects."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

import kubernetes_validate
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from tests.contract.deploy.release import PREDICTOR_FIELDS, at, mapping
from tests.contract.deploy.rendering import Manifest

SCHEMAS = Path(__file__).parents[1] / "schemas"
# The oldest with the preStop sleep that pods use, and the newest that the validator knows.
KUBERNETES_VERSIONS = ("1.30.0", kubernetes_validate.latest_version())
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
    if (spec := _pod_spec(manifest)) is not None:
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": spec}
        kubernetes_validate.validate(pod, version, strict=True)


def _pod_spec(manifest: Manifest) -> Manifest | None:
    """What of one of KServe's objects is the specification of a pod."""
    if manifest["kind"] == "ServingRuntime":
        spec = mapping(manifest["spec"])
        return {name: spec[name] for name in ("containers", "volumes", "nodeSelector", "tolerations") if name in spec}
    if manifest["kind"] == "InferenceService":
        predictor = mapping(at(manifest, "spec.predictor"))
        own = {name: value for name, value in predictor.items() if name not in PREDICTOR_FIELDS}
        return own | {"containers": [{"name": "kserve-container"}]}
    return None
