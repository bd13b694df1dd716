"""Renders a kustomize overlay of ours without kustomize, so that its tests need no program that may not be there.

It knows what our files use (resources, strategic-merge patches, image tags) and refuses anything else. Where `kubectl`
is on the PATH, a test holds the two against each other.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import yaml

Manifest = dict[str, Any]

# Lists that Kubernetes merges by a key, under the field that holds them; every other list is replaced as a whole.
MERGE_KEYS = {"containers": "name", "env": "name", "volumes": "name", "volumeMounts": "mountPath"}
KNOWN_FIELDS = {"apiVersion", "kind", "resources", "patches", "images"}


def render(folder: Path) -> dict[str, Manifest]:
    """The objects that an overlay or a base stands for, by kind.

    Args:
        folder: holds a ``kustomization.yaml``.

    Raises:
        ValueError: the kustomization uses a field that is not understood here, or has two objects of one kind.
    """
    kustomization = read(folder / "kustomization.yaml")
    unknown = kustomization.keys() - KNOWN_FIELDS
    if unknown:
        raise ValueError(f"{folder}/kustomization.yaml: expected only {sorted(KNOWN_FIELDS)}, found {sorted(unknown)}")
    objects: dict[str, Manifest] = {}
    for resource in kustomization["resources"]:
        path = folder / resource
        found = render(path) if path.is_dir() else {(manifest := read(path))["kind"]: manifest}
        if objects.keys() & found.keys():
            raise ValueError(f"{folder}: expected one object of each kind, found a second {found.keys()}")
        objects |= found
    for patch in kustomization.get("patches", []):
        change = read(folder / patch["path"])
        objects[change["kind"]] = merge(objects[change["kind"]], change)
    for image in kustomization.get("images", []):
        for container in objects["Deployment"]["spec"]["template"]["spec"]["containers"]:
            name = container["image"].partition(":")[0]
            if name == image["name"]:
                container["image"] = f"{name}:{image['newTag']}"
    return objects


def read(path: Path) -> Manifest:
    """One YAML file with one object."""
    manifest: Manifest = yaml.safe_load(path.read_text(encoding="utf-8"))
    return manifest


def merge(base: Any, change: Any, field: str = "") -> Any:
    """A strategic merge: objects field by field, keyed lists entry by entry (new ones first), the rest replaced."""
    if isinstance(base, dict) and isinstance(change, dict):
        merged = copy.deepcopy(base)
        for name, value in change.items():
            merged[name] = merge(merged[name], value, name) if name in merged else copy.deepcopy(value)
        return merged
    if isinstance(base, list) and field in MERGE_KEYS:
        key = MERGE_KEYS[field]
        changes = {entry[key]: entry for entry in change}
        kept = [merge(entry, changes.pop(entry[key], {})) for entry in base]
        return [*copy.deepcopy(list(changes.values())), *kept]
    return copy.deepcopy(change)
