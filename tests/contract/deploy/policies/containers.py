"""Policies on containers: what they may do, what they are given, which image and which settings."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from service.errors import SettingsError
from service.settings import Settings, load_settings
from tests.contract.deploy.policies.workload import gpus
from tests.contract.deploy.release import Pod, Release, at, environment, items, mapping
from tests.contract.deploy.rendering import ROOT
from tests.image.dockerfile import read_dockerfile

LOCKED = {
    "allowPrivilegeEscalation": False,
    "privileged": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
KSERVE_BUNDLE = "/mnt/models"
IMAGE = read_dockerfile(ROOT / "docker" / "service.Dockerfile").stage("service").environment()
FETCH = [
    *("xmc-serve", "fetch", "$(BUNDLE_URL)", "--into", "/models/bundle"),
    *("--sha256", "$(BUNDLE_SHA256)"),
]


def locked_down(release: Release) -> Iterator[str]:
    """No container may become more than it is."""
    for pod in release.pods:
        for container in pod.all:
            if container.get("securityContext") != LOCKED:
                yield f"{container.get('name')}: expected the securityContext {LOCKED}"


def memory_is_asked_for_as_limited(release: Release) -> Iterator[str]:
    """A pod that may use more than it asked for is the first to be killed when its node runs short."""
    for pod in release.pods:
        for container in pod.all:
            requests, limits = (mapping(at(container, f"resources.{name}")) for name in ("requests", "limits"))
            if not re.fullmatch("[1-9][0-9]*Gi", str(limits.get("memory"))):
                yield f"{container.get('name')}: expected a limit of memory"
            if requests.get("memory") != limits.get("memory"):
                yield f"{container.get('name')}: expected as much memory to be asked for as it may use"


def processors_are_asked_for_and_not_limited(release: Release) -> Iterator[str]:
    """A limit would stop all threads in the middle of a batch, instead of sharing what is idle."""
    for pod in release.pods:
        for container in pod.all:
            if not re.fullmatch("[1-9][0-9]*", str(at(container, "resources.requests.cpu"))):
                yield f"{container.get('name')}: expected whole processors to be asked for"
            if at(container, "resources.limits.cpu") is not None:
                yield f"{container.get('name')}: expected no limit of processors"
        threads = environment(pod.service).get("XMC_THREADS")
        expected = {"resourceFieldRef": {"containerName": pod.service.get("name"), "resource": "requests.cpu"}}
        if threads != expected:
            yield "XMC_THREADS: expected the processors that are asked for"


def device_is_named(release: Release) -> Iterator[str]:
    """One GPU, or a slice of one, with the image and the setting for it; without one, those for a CPU."""
    for pod in release.pods:
        if list(gpus(pod).values()) not in ([], ["1"]):
            yield f"expected one GPU, one slice of one, or none, found {gpus(pod)}"
        flavour, device = ("gpu", "cuda") if gpus(pod) else ("cpu", "cpu")
        if environment(pod.service).get("XMC_DEVICE") != device:
            yield f"XMC_DEVICE: expected {device}: a pod that finds none must not start on something else"
        for container in pod.all:
            if container.get("image") != f"xmcserve:{VERSION}-{flavour}":
                yield f"{container.get('name')}: expected the image of this version for {flavour}"
            if container.get("imagePullPolicy") != "IfNotPresent":
                yield f"{container.get('name')}: expected imagePullPolicy IfNotPresent: a tag never changes"


def settings_are_settings(release: Release) -> Iterator[str]:
    """The service takes what it is given, listens where the container says, and serves from what is mounted."""
    for pod in release.pods:
        try:
            settings = settings_of(pod)
        except SettingsError as error:
            yield str(error)
            continue
        models = Path(KSERVE_BUNDLE if pod.by_kserve else "/models")
        if not settings.bundles or not all(bundle.is_relative_to(models) for bundle in settings.bundles):
            yield f"expected bundles below {models}"
        ports = [(port.get("name"), port.get("containerPort")) for port in items(pod.service.get("ports"))]
        expected = [("http", settings.port), ("metrics", settings.metrics_port)]
        if ports != ([("http1", settings.port)] if pod.by_kserve else expected):
            yield f"expected the ports of the settings, found {ports}"
        keys = [settings.api_keys_file, *settings.bundle_keys] if "keys" in pod.volumes else []
        if keys not in ([], [Path("/keys/clients"), Path("/keys/release.pub")]):
            yield "expected keys of clients and of bundles where there is a volume of keys"


def settings_of(pod: Pod) -> Settings:
    """What the service makes of its flags, its environment and that of the image."""
    values = environment(pod.service)
    given = {name: value if isinstance(value, str) else "1" for name, value in values.items()}
    bundles = KSERVE_BUNDLE if pod.service.get("args") == ["--bundle", KSERVE_BUNDLE] else None
    return _loaded(bundles, tuple(given.items()))


@cache
def _loaded(bundles: str | None, variables: tuple[tuple[str, str], ...]) -> Settings:
    return load_settings({} if bundles is None else {"bundles": bundles}, IMAGE | dict(variables))


def fetched_bundles_are_pinned(release: Release) -> Iterator[str]:
    """What is fetched is named by its digest, before the service starts, and is what the service serves."""
    for pod in release.pods:
        for container in pod.init:
            if (container.get("name"), container.get("command")) != ("fetch", FETCH):
                yield "expected the one init container to fetch what it is told, by its digest"
            references = environment(container)
            for variable, key in (("BUNDLE_URL", "url"), ("BUNDLE_SHA256", "sha256")):
                reference = mapping(at(references.get(variable), "configMapKeyRef"))
                values = mapping(release.named("ConfigMap", reference.get("name")).get("data"))
                if reference.get("key") != key or key not in values:
                    yield f"{variable}: expected {key} of a ConfigMap of the set"
            if environment(pod.service).get("XMC_BUNDLES") != "/models/bundle":
                yield "XMC_BUNDLES: expected what is fetched"
            mounts = {entry.get("mountPath"): entry for entry in items(container.get("volumeMounts"))}
            if {path: entry.get("name") for path, entry in mounts.items()} != {"/models": "models", "/tmp": "tmp"}:
                yield "expected the folders that a fetch writes to"
        fetches = "emptyDir" in mapping(pod.volumes.get("models"))
        if fetches != bool(pod.init):
            yield "expected an empty folder of models where they are fetched, and nowhere else"


POLICIES = (
    locked_down,
    memory_is_asked_for_as_limited,
    processors_are_asked_for_and_not_limited,
    device_is_named,
    settings_are_settings,
    fetched_bundles_are_pinned,
)
