"""The objects of one set, as policies look at them: nothing here fails on an object that lacks something."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tests.contract.deploy.rendering import Manifest

# What of a predictor is none of the pod's specification.
PREDICTOR_FIELDS = {"model", "minReplicas", "maxReplicas", "deploymentStrategy"}
KSERVE_LABEL = "serving.kserve.io/inferenceservice"


def at(manifest: object, path: str) -> object:
    """The value at a dotted path, None where there is none."""
    value = manifest
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def mapping(value: object) -> Manifest:
    """The value where it is a mapping, else an empty one."""
    return value if isinstance(value, dict) else {}


def items(value: object) -> list[Manifest]:
    """The mappings in a list, or none where it is no list."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def number(value: object) -> float:
    """A number, or -1 for anything else."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) else -1


def environment(container: Manifest) -> dict[str, object]:
    """The variables of a container: their values, or where these come from."""
    return {
        str(entry.get("name")): entry["value"] if "value" in entry else entry.get("valueFrom")
        for entry in items(container.get("env"))
    }


@dataclass(frozen=True)
class Pod:
    """The pods that one object makes.

    Attributes:
        labels: which they have.
        spec: of one of them.
        strategy: how they are replaced.
        by_kserve: whether KServe makes them, which mounts the models itself.
    """

    labels: Mapping[str, object]
    spec: Manifest
    strategy: object
    by_kserve: bool = False

    @property
    def init(self) -> list[Manifest]:
        """Its init containers."""
        return items(self.spec.get("initContainers"))

    @property
    def all(self) -> list[Manifest]:
        """All its containers."""
        return self.init + items(self.spec.get("containers"))

    @property
    def service(self) -> Manifest:
        """The container of the service; an empty one where it is not alone."""
        containers = items(self.spec.get("containers"))
        wanted = "kserve-container" if self.by_kserve else "service"
        return containers[0] if len(containers) == 1 and containers[0].get("name") == wanted else {}

    @property
    def volumes(self) -> dict[str, Manifest]:
        """Its volumes by name."""
        return {str(volume.get("name")): volume for volume in items(self.spec.get("volumes"))}


class Release:
    """All objects of one set."""

    def __init__(self, objects: list[Manifest]) -> None:
        self.objects = objects

    def of_kind(self, kind: str) -> list[Manifest]:
        """Its objects of a kind."""
        return [manifest for manifest in self.objects if manifest.get("kind") == kind]

    def named(self, kind: str, name: object) -> Manifest:
        """One object; an empty one where there is none."""
        return next((found for found in self.of_kind(kind) if at(found, "metadata.name") == name), {})

    @property
    def pods(self) -> list[Pod]:
        """What makes pods in it."""
        return [*self._deployed(), *self._inferring()]

    def _deployed(self) -> Iterator[Pod]:
        for manifest in self.of_kind("Deployment"):
            template = mapping(at(manifest, "spec.template"))
            labels = mapping(at(template, "metadata.labels"))
            yield Pod(labels, mapping(template.get("spec")), at(manifest, "spec.strategy"))

    def _inferring(self) -> Iterator[Pod]:
        for manifest in self.of_kind("InferenceService"):
            predictor = mapping(at(manifest, "spec.predictor"))
            own = {name: value for name, value in predictor.items() if name not in PREDICTOR_FIELDS}
            runtime = mapping(self.named("ServingRuntime", at(predictor, "model.runtime")).get("spec"))
            shared = {name: runtime[name] for name in ("containers", "volumes", "nodeSelector") if name in runtime}
            labels = {KSERVE_LABEL: at(manifest, "metadata.name")}
            yield Pod(labels, shared | own, predictor.get("deploymentStrategy"), by_kserve=True)
