"""The Ray clusters of one set, as policies look at them: nothing here fails on an object that lacks something."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property

import yaml

from tests.contract.deploy.release import Release, at, items, mapping
from tests.contract.deploy.rendering import Manifest

# Where each kind that KubeRay knows holds its cluster.
CLUSTER = {"RayService": "spec.rayClusterConfig", "RayJob": "spec.rayClusterSpec"}
HEAD = "head"
NAME = "app.kubernetes.io/name"
INSTANCE = "app.kubernetes.io/instance"


@dataclass(frozen=True)
class Node:
    """The pods of one group of a cluster.

    Attributes:
        group: the group's name; ``head`` for the head's.
        entry: of the group in the cluster.
    """

    group: str
    entry: Manifest

    @property
    def is_head(self) -> bool:
        """Whether it manages the others."""
        return self.group == HEAD

    @property
    def labels(self) -> Mapping[str, object]:
        """Which its pods are given here; KubeRay adds others."""
        return mapping(at(self.entry, "template.metadata.labels"))

    @property
    def spec(self) -> Manifest:
        """Of one of its pods."""
        return mapping(at(self.entry, "template.spec"))

    @property
    def parameters(self) -> Manifest:
        """What `ray start` is told."""
        return mapping(self.entry.get("rayStartParams"))

    @property
    def ray(self) -> Manifest:
        """The container of Ray; an empty one where it is not alone, or not called as KubeRay calls it."""
        containers = items(self.spec.get("containers"))
        wanted = "ray-head" if self.is_head else "ray-worker"
        return containers[0] if len(containers) == 1 and containers[0].get("name") == wanted else {}

    @property
    def is_for_gpus(self) -> bool:
        """Whether its name says that its pods have a GPU each."""
        return self.group in ("gpu", "server-gpu")

    @property
    def answers(self) -> bool:
        """Whether its name says that servers are on its pods."""
        return self.group in ("server", "server-gpu")


@dataclass(frozen=True)
class Cluster:
    """What a RayService or a RayJob makes.

    Attributes:
        manifest: the object.
    """

    manifest: Manifest

    @property
    def serves(self) -> bool:
        """Whether it serves rather than trains."""
        return self.manifest.get("kind") == "RayService"

    @property
    def name(self) -> object:
        """Of the object, by which its pods are told from those of another."""
        return at(self.manifest, "metadata.name")

    @property
    def labels(self) -> Mapping[str, object]:
        """By which all its pods are found."""
        return {NAME: "xmcserve", INSTANCE: self.name}

    @property
    def spec(self) -> Manifest:
        """Of the cluster."""
        return mapping(at(self.manifest, CLUSTER[str(self.manifest.get("kind"))]))

    @property
    def autoscaler(self) -> Manifest:
        """What the container that KubeRay puts beside the head's is given."""
        return mapping(self.spec.get("autoscalerOptions"))

    @cached_property
    def workers(self) -> list[Node]:
        """All groups but the head's."""
        return [Node(str(entry.get("groupName")), entry) for entry in items(self.spec.get("workerGroupSpecs"))]

    @cached_property
    def head(self) -> Node:
        """The head's group."""
        return Node(HEAD, mapping(self.spec.get("headGroupSpec")))

    @property
    def nodes(self) -> list[Node]:
        """All groups."""
        return [self.head, *self.workers]

    @property
    def shards(self) -> Node:
        """The group that shards are on."""
        return next((node for node in self.workers if node.group == "shard"), Node("shard", {}))

    @property
    def servers(self) -> Node:
        """The group that servers are on: with GPUs where these ask for some."""
        deployments = [
            found for entry in items(self.served.get("applications")) for found in items(entry.get("deployments"))
        ]
        on_gpus = any("num_gpus" in mapping(found.get("ray_actor_options")) for found in deployments)
        wanted = "server-gpu" if on_gpus else "server"
        return next((node for node in self.workers if node.group == wanted), Node(wanted, {}))

    @property
    def served(self) -> Manifest:
        """What Ray Serve is told."""
        return served(self.manifest)


def served(manifest: Manifest) -> Manifest:
    """What a RayService tells Ray Serve, to be looked at and not to be changed; empty where that is no YAML."""
    return _parsed(str(at(manifest, "spec.serveConfigV2")))


@cache
def _parsed(text: str) -> Manifest:
    try:
        return mapping(yaml.safe_load(text))
    except yaml.YAMLError:
        return {}


def clusters(release: Release) -> Iterator[Cluster]:
    """Those of a set."""
    for kind in CLUSTER:
        yield from (Cluster(manifest) for manifest in release.of_kind(kind))
