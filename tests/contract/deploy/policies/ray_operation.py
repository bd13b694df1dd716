"""Policies on what Ray clusters run: which image, which settings, when a pod gets requests, when it goes."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path

from service.errors import SettingsError
from service.settings import Settings, load_settings, options
from tests.contract.deploy.clusters import Cluster, Node, clusters
from tests.contract.deploy.policies.containers import IMAGE, VERSION
from tests.contract.deploy.policies.operation import MARGIN_SECONDS
from tests.contract.deploy.release import Release, at, environment, items, mapping, number
from tests.contract.deploy.rendering import ROOT, Manifest

PINS = dict(
    line.split("==") for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if "==" in line
)
AGENT = {"httpGet": {"path": "/api/healthz", "port": 52365}, "periodSeconds": 5, "timeoutSeconds": 5}
ALIVE = AGENT | {"initialDelaySeconds": 30, "failureThreshold": 120}
READY = AGENT | {"failureThreshold": 10}
SERVES = AGENT | {"httpGet": {"path": "/-/healthz", "port": 8000}, "failureThreshold": 1}
# What a server asks for, by whether its pods have GPUs.
SERVER = {False: {"num_cpus": 0, "resources": {"server": 1}}, True: {"num_cpus": 0, "num_gpus": 1}}
LEAVING_SECONDS = 5
# What Ray takes to drain a pod when it is told to end.
DRAIN_SECONDS = 30
REQUEST_SECONDS = Settings().request_seconds


def ray_is_the_one_that_is_pinned(release: Release) -> Iterator[str]:
    """KubeRay asks for health as this version answers, and nodes of two versions do not speak with each other."""
    for cluster in clusters(release):
        if cluster.spec.get("rayVersion") != PINS["ray"]:
            yield f"rayVersion: expected {PINS['ray']}"


def ray_images_are_of_this_version(release: Release) -> Iterator[str]:
    """That of the service for the group's device, with Ray in it, or that of training."""
    for cluster in clusters(release):
        for node in cluster.nodes:
            served = f"xmcserve:{VERSION}-{'gpu' if node.is_for_gpus else 'cpu'}-ray"
            expected = served if cluster.serves else f"xmcserve-training:{VERSION}-ray"
            if node.ray.get("image") != expected:
                yield f"{node.group}: expected the image {expected}"
            if {node.ray.get("imagePullPolicy"), cluster.autoscaler.get("imagePullPolicy")} != {"IfNotPresent"}:
                yield f"{node.group}: expected imagePullPolicy IfNotPresent: a tag never changes"


def ray_pods_are_told_the_same(release: Release) -> Iterator[str]:
    """All of a cluster's are: the application may be put together on any of them."""
    for cluster in clusters(release):
        for node in cluster.nodes:
            told = _told(release, node)
            if told.get("RAY_USAGE_STATS_ENABLED") != "0":
                yield f"{node.group}: expected Ray to tell nobody how it is used"
            if environment(node.ray) != ({} if cluster.serves else {"RAY_USAGE_STATS_ENABLED": "0"}):
                yield f"{node.group}: expected nothing that others are not told"
            if cluster.serves:
                yield from _settings_faults(cluster, node, told)


def _told(release: Release, node: Node) -> dict[str, object]:
    """The variables of Ray's container, those that a ConfigMap holds included."""
    sources = [mapping(at(entry, "configMapRef")) for entry in items(node.ray.get("envFrom"))]
    maps = [mapping(release.named("ConfigMap", source.get("name")).get("data")) for source in sources]
    return {name: value for found in (*maps, environment(node.ray)) for name, value in found.items()}


def _settings_faults(cluster: Cluster, node: Node, told: dict[str, object]) -> Iterator[str]:
    try:
        settings = _loaded(tuple((name, str(value)) for name, value in told.items()))
    except SettingsError as error:
        yield str(error)
        return
    if not settings.bundles or not all(bundle.is_relative_to(Path("/models")) for bundle in settings.bundles):
        yield f"{node.group}: expected bundles below /models"
    if settings.device != ("cuda" if cluster.servers.is_for_gpus else "cpu"):
        yield "XMC_DEVICE: expected what servers have: one that finds none must not start on something else"
    for name, threads, group in (
        ("XMC_THREADS", settings.threads, cluster.servers),
        ("XMC_SHARD_THREADS", settings.shard_threads, cluster.shards),
    ):
        if str(threads) != at(group.ray, "resources.requests.cpu"):
            yield f"{name}: expected the processors of a pod, which holds one of them"
    ports = [{"name": "xmc-metrics", "containerPort": settings.metrics_port}] if node.answers else []
    if node.ray.get("ports", []) != ports:
        yield f"{node.group}: expected the port of the metrics where requests are answered, by a name that is not Ray's"


@cache
def _loaded(variables: tuple[tuple[str, str], ...]) -> Settings:
    return load_settings({}, IMAGE | dict(variables))


def ray_pods_are_asked_what_kuberay_asks(release: Release) -> Iterator[str]:
    """Without wget, which the image has not: Ray for a restart, and where it is served a proxy before requests come."""
    for cluster in clusters(release):
        for node in cluster.nodes:
            if node.ray.get("livenessProbe") != ALIVE:
                yield f"{node.group}: livenessProbe: expected {ALIVE}"
            ready = SERVES if cluster.serves and not node.is_head else READY
            if node.ray.get("readinessProbe") != ready:
                yield f"{node.group}: readinessProbe: expected {ready}"


def ray_pods_leave_before_they_end(release: Release) -> Iterator[str]:
    """A pod that serves has left the Service by the time Ray is told to end; then all have time to be drained."""
    for cluster in clusters(release):
        for node in cluster.nodes:
            leaves = cluster.serves and not node.is_head
            sleep = number(at(node.ray, "lifecycle.preStop.sleep.seconds"))
            if leaves and (sleep < LEAVING_SECONDS or set(mapping(node.ray.get("lifecycle"))) != {"preStop"}):
                yield f"{node.group}: expected a preStop sleep of {LEAVING_SECONDS} s"
            needed = LEAVING_SECONDS + DRAIN_SECONDS + MARGIN_SECONDS
            if number(node.spec.get("terminationGracePeriodSeconds")) < needed:
                yield f"{node.group}: terminationGracePeriodSeconds: expected at least {needed}"


def ray_serves_our_application(release: Release) -> Iterator[str]:
    """One application, whose shards have two replicas or more, and whose server is where it is looked for."""
    for cluster in clusters(release):
        if not cluster.serves:
            continue
        applications = items(cluster.served.get("applications"))
        if cluster.served.keys() != {"applications"} or len(applications) != 1:
            yield "serveConfigV2: expected one application, and nothing beside it"
        for application in applications:
            yield from _application_faults(cluster, application)


def _application_faults(cluster: Cluster, application: Manifest) -> Iterator[str]:
    given = mapping(application.get("args"))
    least, most = (number(given.get(name)) for name in ("shard_replicas", "most_shard_replicas"))
    if given.keys() != {"shard_replicas", "most_shard_replicas"} or not 2 <= least < most:
        yield "args: expected two replicas of a shard or more, and room for more; bundles are named by the pods"
    if fault := _argument_fault(tuple((name, str(value)) for name, value in given.items())):
        yield f"args: {fault}"
    server = {
        "name": "server",
        "num_replicas": number(cluster.servers.entry.get("minReplicas")),
        "ray_actor_options": SERVER[cluster.servers.is_for_gpus],
    }
    expected = {
        "name": "xmcserve",
        "route_prefix": "/",
        "import_path": "service.distributed.application:build",
        "args": given,
        "deployments": [server],
    }
    if application != expected:
        yield f"serveConfigV2: expected {expected}, found {application}"


@cache
def _argument_fault(given: tuple[tuple[str, str], ...]) -> str | None:
    """What is wrong with arguments that are settings of the service."""
    try:
        load_settings({name: value for name, value in given if name in options()}, {})
    except SettingsError as error:
        return str(error)
    return None


def ray_requests_see_one_version(release: Release) -> Iterator[str]:
    """Another bundle makes another cluster, which takes over as a whole; the old one answers what it has taken."""
    for cluster in clusters(release):
        spec = mapping(cluster.manifest.get("spec"))
        if not cluster.serves:
            continue
        if spec.get("upgradeStrategy") != {"type": "NewCluster"}:
            yield "upgradeStrategy: expected a new cluster"
        if number(spec.get("rayClusterDeletionDelaySeconds")) < 2 * REQUEST_SECONDS:
            yield "rayClusterDeletionDelaySeconds: expected twice as long as a request may take"
        if spec.get("excludeHeadPodFromServeSvc") is not True:
            yield "excludeHeadPodFromServeSvc: expected no requests at the head"
        for node in cluster.nodes:
            if node.ray.get("envFrom") != [{"configMapRef": {"name": _bundles_config(release)}}]:
                yield f"{node.group}: expected the ConfigMap of the set that names the bundles, and no other"


def _bundles_config(release: Release) -> object:
    """The name of the ConfigMap, which ends in what it holds."""
    names = [at(found, "metadata.name") for found in release.of_kind("ConfigMap") if at(found, "data.XMC_BUNDLES")]
    return names[0] if len(names) == 1 else None


def ray_runs_go_on(release: Release) -> Iterator[str]:
    """A run that was cut off is taken up by a new cluster; when it is over, the cluster goes and the artifact stays."""
    for cluster in clusters(release):
        spec = mapping(cluster.manifest.get("spec"))
        if cluster.serves:
            continue
        words = shlex.split(str(spec.get("entrypoint")))
        options_given = dict(pairwise(words))
        if words[:2] != ["xmc-train", "fit"] or options_given.get("--ray") != "auto" or "--resume" not in words:
            yield "entrypoint: expected a run on the cluster that goes on where it was"
        if not all(str(options_given.get(name)).startswith("/work/") for name in ("--data", "--out")):
            yield "entrypoint: expected data and artifact on the volume that all pods see"
        if spec.get("submissionMode") != "HTTPMode":
            yield "submissionMode: expected no pod for it"
        if number(spec.get("backoffLimit")) < 1:
            yield "backoffLimit: expected another try"
        if spec.get("shutdownAfterJobFinishes") is not True or number(spec.get("ttlSecondsAfterFinished")) < 600:
            yield "expected the cluster to go, and some time for its logs before"


POLICIES = (
    ray_is_the_one_that_is_pinned,
    ray_images_are_of_this_version,
    ray_pods_are_told_the_same,
    ray_pods_are_asked_what_kuberay_asks,
    ray_pods_leave_before_they_end,
    ray_serves_our_application,
    ray_requests_see_one_version,
    ray_runs_go_on,
)
