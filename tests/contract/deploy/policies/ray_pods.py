"""Policies on the pods of Ray clusters: who they are, what they may touch, what they are given.

KubeRay adds to them: its labels, the command, a container that waits for the head, the autoscaler beside the head.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from tests.contract.deploy.clusters import Cluster, Node, clusters
from tests.contract.deploy.policies.containers import LOCKED
from tests.contract.deploy.policies.workload import GPU, NOBODY
from tests.contract.deploy.release import Release, at, items, mapping
from tests.contract.deploy.rendering import Manifest

GROUPS = {True: ["server", "server-gpu", "shard"], False: ["cpu", "gpu"]}
POD_FIELDS = {
    *("serviceAccountName", "automountServiceAccountToken", "enableServiceLinks", "terminationGracePeriodSeconds"),
    *("securityContext", "nodeSelector", "containers", "volumes"),
}
CONTAINER_FIELDS = {
    *("name", "image", "imagePullPolicy", "resources", "readinessProbe", "livenessProbe", "securityContext"),
    "volumeMounts",
}
# Training writes to a volume, which is given to this group.
GROUP = {"fsGroup": 65532, "fsGroupChangePolicy": "OnRootMismatch"}
TOKEN_FOLDER = "/var/run/secrets/kubernetes.io/serviceaccount"
TOKEN = {
    "projected": {
        "sources": [
            {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        ]
    }
}
MODELS = {"persistentVolumeClaim": {"claimName": "xmcserve-models", "readOnly": True}}
WORK = {"persistentVolumeClaim": {"claimName": "xmcserve-training"}}
UNITS = {"Mi": 2**20, "Gi": 2**30}


def _nodes(release: Release) -> Iterator[tuple[Cluster, Node]]:
    yield from ((cluster, node) for cluster in clusters(release) for node in cluster.nodes)


def size_bytes(text: object) -> int:
    """A size with a binary unit; -1 for anything else."""
    found = re.fullmatch("([1-9][0-9]*)(Mi|Gi)", text) if isinstance(text, str) else None
    return int(found[1]) * UNITS[found[2]] if found else -1


def ray_pods_are_of_known_groups(release: Release) -> Iterator[str]:
    """For tasks on CPUs and GPUs, or for servers on either and shards. Their labels tell one cluster's apart."""
    for cluster in clusters(release):
        groups = [node.group for node in cluster.workers]
        if groups != GROUPS[cluster.serves]:
            yield f"expected the groups {GROUPS[cluster.serves]}, found {groups}"
        for node in cluster.nodes:
            if mapping(node.entry.get("template")).get("metadata") != {"labels": cluster.labels}:
                yield f"{node.group}: expected the labels {cluster.labels}"


def ray_pods_have_nothing_more(release: Release) -> Iterator[str]:
    """Nothing of the host, no further container, nothing else that nobody thought of."""
    for cluster, node in _nodes(release):
        expected = POD_FIELDS | ({"tolerations"} if node.is_for_gpus else set())
        expected |= set() if node.is_head else {"topologySpreadConstraints"}
        if node.spec.keys() != expected:
            yield f"{node.group}: expected a pod with {sorted(expected)}, found {sorted(node.spec)}"
        expected = CONTAINER_FIELDS | {"envFrom" if cluster.serves else "env"}
        expected |= {"lifecycle"} if cluster.serves and not node.is_head else set()
        expected |= {"ports"} if node.answers else set()
        if node.ray.keys() != expected:
            yield f"{node.group}: expected Ray's container with {sorted(expected)}, found {sorted(node.ray)}"


def ray_tokens_are_the_autoscalers(release: Release) -> Iterator[str]:
    """It alone speaks to the Kubernetes API: whoever takes over another container cannot."""
    for cluster, node in _nodes(release):
        name = node.spec.get("serviceAccountName")
        if release.named("ServiceAccount", name).get("automountServiceAccountToken") is not False:
            yield f"{node.group}: expected an account of its own that carries no token"
        if (name == cluster.head.spec.get("serviceAccountName")) != node.is_head:
            yield f"{node.group}: expected another account than the head's"
        if node.spec.get("automountServiceAccountToken") is not False:
            yield f"{node.group}: expected a pod without a token"
    for cluster in clusters(release):
        mounts = [
            {"name": "api-token", "mountPath": TOKEN_FOLDER, "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},
        ]
        if cluster.autoscaler.get("volumeMounts") != mounts:
            yield f"autoscaler: expected the mounts {mounts}"


def ray_pods_are_nobodys(release: Release) -> Iterator[str]:
    """No root, no unusual system calls, no addresses of Services that pass for settings."""
    for cluster, node in _nodes(release):
        expected = NOBODY if cluster.serves else NOBODY | GROUP
        if node.spec.get("securityContext") != expected:
            yield f"{node.group}: expected the securityContext {expected}"
        if node.spec.get("enableServiceLinks") is not False:
            yield f"{node.group}: expected enableServiceLinks: false"


def ray_containers_are_locked_down(release: Release) -> Iterator[str]:
    """No container may become more than it is, that which KubeRay adds included."""
    for cluster, node in _nodes(release):
        if node.ray.get("securityContext") != LOCKED or cluster.autoscaler.get("securityContext") != LOCKED:
            yield f"{node.group}: expected the securityContext {LOCKED}, of the autoscaler as well"


def ray_pods_write_where_they_must(release: Release) -> Iterator[str]:
    """Folders of limited size, the volume of a run; models are only read, and every pod sees them at the same path."""
    for cluster, node in _nodes(release):
        at_path, volume = ("/models", MODELS) if cluster.serves else ("/work", WORK)
        own = at_path.strip("/")
        expected: dict[str, Manifest] = {own: volume} | ({"api-token": TOKEN} if node.is_head else {})
        volumes = {entry.get("name"): entry for entry in items(node.spec.get("volumes"))}
        if volumes.keys() != {*expected, "tmp", "ray-logs", "dshm"}:
            yield f"{node.group}: expected the volumes {sorted(expected)}, /tmp, logs and shared memory"
        for name, content in expected.items():
            if volumes.get(name) != {"name": name} | content:
                yield f"{node.group}: volume {name}: expected {content}"
        for name in ("tmp", "ray-logs", "dshm"):
            folder = mapping(mapping(volumes.get(name)).get("emptyDir"))
            medium = {"medium": "Memory"} if name == "dshm" else {}
            if size_bytes(folder.get("sizeLimit")) < 0 or folder != medium | {"sizeLimit": folder.get("sizeLimit")}:
                yield f"{node.group}: volume {name}: expected a folder of limited size"
        mounts: list[Manifest] = [
            {"name": own, "mountPath": at_path} | ({"readOnly": True} if cluster.serves else {}),
            {"name": "tmp", "mountPath": "/tmp"},
            # KubeRay knows it by this name, for the autoscaler writes there, too.
            {"name": "ray-logs", "mountPath": "/tmp/ray"},
            {"name": "dshm", "mountPath": "/dev/shm"},
        ]
        if node.ray.get("volumeMounts") != mounts:
            yield f"{node.group}: expected the mounts {mounts}"


def ray_objects_fit_into_shared_memory(release: Release) -> Iterator[str]:
    """Where they do not, Ray writes them to a disk, and without a number takes a third of the pod."""
    for _, node in _nodes(release):
        store, shared = node.parameters.get("object-store-memory"), -1
        for entry in items(node.spec.get("volumes")):
            shared = size_bytes(at(entry, "emptyDir.sizeLimit")) if entry.get("name") == "dshm" else shared
        memory = size_bytes(at(node.ray, "resources.limits.memory"))
        if not (isinstance(store, str) and store.isdigit() and 10**8 <= int(store) < shared < memory / 2):
            yield f"{node.group}: object-store-memory: expected less than /dev/shm, that less than half of the memory"


def ray_pods_ask_for_what_they_may_use(release: Release) -> Iterator[str]:
    """Memory as limited, whole processors without a limit, a GPU where the group is for one."""
    for _, node in _nodes(release):
        requests, limits = (mapping(at(node.ray, f"resources.{name}")) for name in ("requests", "limits"))
        cpu, memory = requests.get("cpu"), limits.get("memory")
        if not (isinstance(cpu, str) and cpu.isdigit() and int(cpu) > 0) or size_bytes(memory) < 0:
            yield f"{node.group}: expected whole processors and a limit of memory"
        gpu = {"nvidia.com/gpu": "1"} if node.is_for_gpus else {}
        resources = {"requests": {"cpu": cpu, "memory": memory}, "limits": {"memory": memory} | gpu}
        if node.ray.get("resources") != resources:
            yield f"{node.group}: expected as much to be asked for as may be used: {resources}"
        if node.spec.get("tolerations") != ([GPU] if node.is_for_gpus else None):
            yield f"{node.group}: expected nodes with GPUs for pods that ask for one, and for no others"
        if node.spec.get("nodeSelector") != {"kubernetes.io/arch": "amd64"}:
            yield f"{node.group}: expected nodes that the image's kernels are compiled for"
    for cluster in clusters(release):
        memory = at(cluster.autoscaler, "resources.limits.memory")
        if size_bytes(memory) < 2**30 or cluster.autoscaler.get("resources") != {
            "requests": {"cpu": "1", "memory": memory},
            "limits": {"memory": memory},
        }:
            yield "autoscaler: expected 1Gi or more, asked for as limited"


def ray_counts_what_fits(release: Release) -> Iterator[str]:
    """As many processors as a pod asks for; on the head, and where servers are, none for whoever asks for one."""
    for _, node in _nodes(release):
        processors = at(node.ray, "resources.requests.cpu")
        expected = {"num-cpus": "0" if node.is_head or node.answers else processors}
        expected |= {"resources": f"'{json.dumps({'server': 1})}'"} if node.group == "server" else {}
        found = {name: value for name, value in node.parameters.items() if name != "object-store-memory"}
        if found != expected:
            yield f"{node.group}: rayStartParams: expected {expected}, found {found}"


def ray_pods_are_spread(release: Release) -> Iterator[str]:
    """Each group over nodes and zones, as far as there are some."""
    for cluster, node in _nodes(release):
        keys = ("kubernetes.io/hostname", "topology.kubernetes.io/zone")
        selector = {"matchLabels": {**cluster.labels, "ray.io/group": node.group}}
        even = {"maxSkew": 1, "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": selector}
        expected = [] if node.is_head else [{"topologyKey": key} | even for key in keys]
        if node.spec.get("topologySpreadConstraints", []) != expected:
            yield f"{node.group}: expected an even spread of the group that stops no pod from starting"


POLICIES = (
    ray_pods_are_of_known_groups,
    ray_pods_have_nothing_more,
    ray_tokens_are_the_autoscalers,
    ray_pods_are_nobodys,
    ray_containers_are_locked_down,
    ray_pods_write_where_they_must,
    ray_objects_fit_into_shared_memory,
    ray_pods_ask_for_what_they_may_use,
    ray_counts_what_fits,
    ray_pods_are_spread,
)
