"""Every way in which one line of a set may be lost or turned, so that policies can show that they notice."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import yaml

from tests.contract.deploy.clusters import NAME, served
from tests.contract.deploy.release import at, mapping
from tests.contract.deploy.rendering import Manifest

Path = tuple[str | int, ...]

# Where the lines that policies hold stand, by kind of object. What is new below any of these must be noticed, too.
HELD: dict[str, tuple[str, ...]] = {
    "Deployment": ("spec",),
    "HTTPRoute": ("spec", "rules"),
    "HorizontalPodAutoscaler": ("spec",),
    "InferenceService": ("spec",),
    "Namespace": ("metadata", "labels"),
    "NetworkPolicy": ("spec",),
    "PodDisruptionBudget": ("spec",),
    "RayJob": ("spec",),
    "RayService": ("spec",),
    "ScaledObject": ("spec",),
    "Service": ("spec",),
    "ServiceAccount": ("automountServiceAccountToken",),
    "ServingRuntime": ("spec",),
}
SERVED: Path = ("spec", "serveConfigV2")
# Without one a set is what it was before a component brought it.
OPTIONAL = {"HTTPRoute"}
# Kinds of objects that harden nothing.
FREE = {"ConfigMap", "PodMonitor", "PrometheusRule", "ServiceMonitor"}


def mutations(objects: list[Manifest]) -> Iterator[tuple[str, list[Manifest]]]:
    """Each change of one place, as words, and the objects after it.

    A place is an object, its name's label, or anything that `HELD` names or that lies below: an entry, a list's item, a
    value. Each is taken away once; values are also turned into others.
    """
    for index, manifest in enumerate(objects):
        if (kind := manifest["kind"]) not in HELD:
            continue
        name = f"{kind} {at(manifest, 'metadata.name')}"
        if kind not in OPTIONAL:
            yield f"{name} is gone", objects[:index] + objects[index + 1 :]
        for path in (*_places(_value(manifest, HELD[kind]), HELD[kind]), *_names(manifest)):
            for words, changed in _changes(objects, index, path):
                yield f"{name}: {words}", changed
        if kind == "RayService":
            for words, text in _served(manifest):
                yield f"{name}: serveConfigV2: {words}", _with(objects, index, SERVED, text)


def _changes(objects: list[Manifest], index: int, path: Path) -> Iterator[tuple[str, list[Manifest]]]:
    """Each change of one place, as words, and the objects after it."""
    where = ".".join(map(str, path))
    yield f"{where} is gone", _with(objects, index, path)
    for other in _others(_value(objects[index], path)):
        yield f"{where} is {other!r}", _with(objects, index, path, other)


def _served(manifest: Manifest) -> Iterator[tuple[str, str]]:
    """The same of what a RayService tells Ray Serve, which is text."""
    config = served(manifest)
    for name, value in config.items():
        for path in _places(value, (name,)):
            for words, (changed,) in _changes([config], 0, path):
                yield words, yaml.safe_dump(changed)


def _names(manifest: Manifest) -> Iterator[Path]:
    """The label by which objects are found, where one has it."""
    if NAME in mapping(at(manifest, "metadata.labels")):
        yield ("metadata", "labels", NAME)


def _places(value: Any, path: Path) -> Iterator[Path]:
    yield path
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _places(inner, (*path, name))
    if isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _places(inner, (*path, index))


def _value(manifest: Any, path: Path) -> Any:
    for step in path:
        manifest = manifest[step]
    return manifest


def _others(value: Any) -> list[Any]:
    """What a value may be turned into."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [0] if value else [1]
    return ["other"] if isinstance(value, str) else []


def _with(objects: list[Manifest], index: int, path: Path, *other: Any) -> list[Manifest]:
    """The objects with another value in one place, or with none."""
    changed = copy.deepcopy(objects[index])
    holder = _value(changed, path[:-1])
    if other:
        holder[path[-1]] = other[0]
    else:
        del holder[path[-1]]
    return [*objects[:index], changed, *objects[index + 1 :]]
