"""Policies on pods as a whole: who they are, where they run, what they may touch."""

from __future__ import annotations

from collections.abc import Iterator

from tests.contract.deploy.clusters import NAME, clusters
from tests.contract.deploy.release import Pod, Release, at, items, mapping

NOBODY = {
    "runAsNonRoot": True,
    "runAsUser": 65532,
    "runAsGroup": 65532,
    "seccompProfile": {"type": "RuntimeDefault"},
}
HOST = ("hostNetwork", "hostPID", "hostIPC", "hostUsers", "hostAliases", "shareProcessNamespace")
GPU = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
RESTRICTED = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn", "audit")}


def pods_exist(release: Release) -> Iterator[str]:
    """A set makes pods of one kind, which hold the service alone, or a Ray cluster."""
    if (found := len(release.pods) + len(list(clusters(release)))) != 1:
        yield f"expected one kind of pods or one Ray cluster, found {found}"
    for pod in release.pods:
        if not pod.service:
            yield "expected the service's container, and no other beside it"


def no_token(release: Release) -> Iterator[str]:
    """Whoever takes over a pod cannot speak to the Kubernetes API."""
    for pod in release.pods:
        account = release.named("ServiceAccount", pod.spec.get("serviceAccountName"))
        if account.get("automountServiceAccountToken") is not False:
            yield "expected an account of its own that carries no token"
        if pod.spec.get("automountServiceAccountToken") is not False:
            yield "expected a pod without a token"


def nobody(release: Release) -> Iterator[str]:
    """No root, no unusual system calls."""
    for pod in release.pods:
        if pod.spec.get("securityContext") != NOBODY:
            yield f"securityContext: expected {NOBODY}, found {pod.spec.get('securityContext')}"


def nothing_of_the_host(release: Release) -> Iterator[str]:
    """Nothing is shared with the node, nor a port taken from it."""
    for pod in release.pods:
        yield from (f"expected no {name}" for name in HOST if name in pod.spec)
        for container in pod.all:
            yield from ("expected no hostPort" for port in items(container.get("ports")) if "hostPort" in port)


def no_service_links(release: Release) -> Iterator[str]:
    """Else a Service called "xmc" would put XMC_PORT=tcp://... into the environment."""
    for pod in release.pods:
        if pod.spec.get("enableServiceLinks") is not False:
            yield "expected enableServiceLinks: false"


def volumes_are_bounded_or_read_only(release: Release) -> Iterator[str]:
    """Volumes are of three kinds: claims and secrets that are only read, and folders of limited size."""
    for pod in release.pods:
        for name, volume in pod.volumes.items():
            if fault := _volume_fault(volume):
                yield f"volume {name}: {fault}"


def _volume_fault(volume: dict[str, object]) -> str | None:
    if "emptyDir" in volume:
        return None if at(volume, "emptyDir.sizeLimit") in ("64Mi", "8Gi") else "expected a sizeLimit"
    if claim := mapping(volume.get("persistentVolumeClaim")):
        fits = claim == {"claimName": "xmcserve-models", "readOnly": True}
        return None if fits else "expected the claim xmcserve-models, read only"
    # Kubernetes gives the files of a secret to root: the service's user is one of the others.
    fits = volume.get("secret") == {"secretName": "xmcserve-keys", "defaultMode": 0o444}
    return None if fits else "expected a claim, a secret that can be read, or an empty folder"


def only_tmp_is_writable(release: Release) -> Iterator[str]:
    """The service writes to /tmp alone; models are written by whoever fetches them, before it starts."""
    for pod in release.pods:
        mounts = {entry.get("mountPath"): entry for entry in items(pod.service.get("volumeMounts"))}
        writable = {path for path, entry in mounts.items() if entry.get("readOnly") is not True}
        if writable != {"/tmp"}:
            yield f"expected /tmp alone to be writable, found {sorted(map(str, writable))}"
        expected = {"/tmp": "tmp"} | ({} if pod.by_kserve else {"/models": "models"})
        expected |= {"/keys": "keys"} if "keys" in pod.volumes else {}
        found = {path: entry.get("name") for path, entry in mounts.items()}
        if found != expected:
            yield f"expected the mounts {expected}, found {found}"
        yield from (
            f"expected the volumes of {container.get('name')}'s mounts"
            for container in pod.all
            if not {entry.get("name") for entry in items(container.get("volumeMounts"))} <= pod.volumes.keys()
        )


def spread(release: Release) -> Iterator[str]:
    """Over nodes and zones, as far as there are some: one failure leaves some pods."""
    for pod in release.pods:
        found = items(pod.spec.get("topologySpreadConstraints"))
        keys = [entry.get("topologyKey") for entry in found]
        if keys != ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]:
            yield f"expected a spread over nodes and zones, found {keys}"
        for entry in found:
            if (entry.get("maxSkew"), entry.get("whenUnsatisfiable")) != (1, "ScheduleAnyway"):
                yield "expected an even spread that stops no pod from starting"
            if entry.get("labelSelector") != {"matchLabels": pod.labels}:
                yield "expected a spread among pods of the same release"


def right_nodes(release: Release) -> Iterator[str]:
    """The processor that kernels are compiled for; nodes with GPUs for pods that ask for one, and for no others."""
    for pod in release.pods:
        if pod.spec.get("nodeSelector") != {"kubernetes.io/arch": "amd64"}:
            yield "expected nodes that the image's kernels are compiled for"
        expected = [GPU] if gpus(pod) else None
        if pod.spec.get("tolerations") != expected:
            yield f"tolerations: expected {expected}, found {pod.spec.get('tolerations')}"


def gpus(pod: Pod) -> dict[str, object]:
    """The resources of NVIDIA's that a pod asks for."""
    limits = mapping(at(pod.service, "resources.limits"))
    return {name: count for name, count in limits.items() if name.startswith("nvidia.com/")}


def namespaces_are_restricted(release: Release) -> Iterator[str]:
    """Where a set names a namespace, that comes with it, and lets no pod in that is weaker than its own."""
    for name in {at(manifest, "metadata.namespace") for manifest in release.objects} - {None}:
        if at(release.named("Namespace", name), "metadata.labels") != RESTRICTED:
            yield f"namespace {name}: expected the labels {RESTRICTED}"


def objects_can_be_found(release: Release) -> Iterator[str]:
    """By one label, with `kubectl get -l` as by a ServiceMonitor."""
    for manifest in release.objects:
        named = mapping(at(manifest, "metadata.labels")).get(NAME) == "xmcserve"
        if not named and manifest.get("kind") not in ("ConfigMap", "Namespace"):
            yield f"{manifest.get('kind')}: expected the label {NAME}: xmcserve"


POLICIES = (
    pods_exist,
    objects_can_be_found,
    no_token,
    nobody,
    nothing_of_the_host,
    no_service_links,
    volumes_are_bounded_or_read_only,
    only_tmp_is_writable,
    spread,
    right_nodes,
    namespaces_are_restricted,
)
