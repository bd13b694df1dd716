"""Policies on Ray clusters as wholes: how large they become, who reaches them, what a drained node takes away."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tests.contract.deploy.clusters import CLUSTER, Cluster, clusters
from tests.contract.deploy.policies.network import CLIENTS, INTERNET, MONITORING, NAMES
from tests.contract.deploy.policies.scaling import BEHAVIOUR
from tests.contract.deploy.release import Release, mapping, number
from tests.contract.deploy.rendering import Manifest

AUTOSCALER = {
    "version": "v2",
    "upscalingMode": "Default",
    # As long as other autoscalers wait.
    "idleTimeoutSeconds": BEHAVIOUR["scaleDown"]["stabilizationWindowSeconds"],
}
# Of its container; other policies hold those.
AUTOSCALER_CONTAINER = {"imagePullPolicy", "resources", "securityContext", "volumeMounts"}
OPERATOR = {
    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kuberay-system"}},
    "podSelector": {
        "matchExpressions": [{"key": "app.kubernetes.io/name", "operator": "In", "values": ["kuberay-operator"]}]
    },
}


def _tcp(*ports: int) -> list[Manifest]:
    return [{"protocol": "TCP", "port": port} for port in ports]


def ray_fields_are_known(release: Release) -> Iterator[str]:
    """Nothing else is said of a cluster or a group than what policies look at."""
    for cluster in clusters(release):
        kind = str(cluster.manifest.get("kind"))
        own = {
            "RayService": {
                "upgradeStrategy",
                "rayClusterDeletionDelaySeconds",
                "excludeHeadPodFromServeSvc",
                "serveConfigV2",
            },
            "RayJob": {
                *("entrypoint", "submissionMode", "backoffLimit", "shutdownAfterJobFinishes"),
                "ttlSecondsAfterFinished",
            },
        }[kind]
        expected = own | {CLUSTER[kind].removeprefix("spec.")}
        if mapping(cluster.manifest.get("spec")).keys() != expected:
            yield f"{kind}: expected {sorted(expected)}"
        if cluster.spec.keys() != {
            *("rayVersion", "authOptions", "enableInTreeAutoscaling", "autoscalerOptions"),
            *("headGroupSpec", "workerGroupSpecs"),
        }:
            yield f"{kind}: expected a cluster's fields, and no others"
        for node in cluster.nodes:
            wanted = {"rayStartParams", "template"}
            wanted |= set() if node.is_head else {"groupName", "minReplicas", "maxReplicas"}
            if node.entry.keys() != wanted or mapping(node.entry.get("template")).keys() != {"metadata", "spec"}:
                yield f"{node.group}: expected {sorted(wanted)}"


def ray_asks_for_a_token(release: Release) -> Iterator[str]:
    """Its ports run whatever they are sent: network policies keep others away where the network heeds them."""
    for cluster in clusters(release):
        if cluster.spec.get("authOptions") != {"mode": "token"}:
            yield "authOptions: expected a token"


def ray_grows_within_bounds(release: Release) -> Iterator[str]:
    """As many pods as replicas or tasks ask for, between two numbers; none of a group that nothing asks for yet."""
    for cluster in clusters(release):
        if cluster.spec.get("enableInTreeAutoscaling") is not True:
            yield "expected an autoscaler"
        own = {name: value for name, value in cluster.autoscaler.items() if name not in AUTOSCALER_CONTAINER}
        if own != AUTOSCALER or not cluster.autoscaler.keys() >= AUTOSCALER_CONTAINER:
            yield f"autoscalerOptions: expected {AUTOSCALER} and its container"
        for node in cluster.workers:
            least, most = number(node.entry.get("minReplicas")), number(node.entry.get("maxReplicas"))
            used = node.group in ((cluster.servers.group, "shard") if cluster.serves else ("cpu",))
            wanted = 2 if cluster.serves else 1
            if not (wanted <= least if used else least == 0):
                yield f"{node.group}: expected {f'{wanted} pods or more' if used else 'no pod before one is asked for'}"
            if not least < most:
                yield f"{node.group}: expected room for more"


def ray_nodes_are_drained_pod_by_pod(release: Release) -> Iterator[str]:
    """Kubernetes counts no pods of KubeRay's, so a budget says how many stay: all but one of those that always are."""
    for cluster in clusters(release):
        stay = {("ray.io/node-type", "head"): 1.0}
        for node in cluster.workers if cluster.serves else []:
            if least := number(node.entry.get("minReplicas")):
                stay["ray.io/group", node.group] = least - 1
        expected = {
            (label, value): {
                "minAvailable": count,
                "unhealthyPodEvictionPolicy": "AlwaysAllow",
                "selector": {"matchLabels": {**cluster.labels, label: value}},
            }
            for (label, value), count in stay.items()
        }
        found = [mapping(manifest.get("spec")) for manifest in release.of_kind("PodDisruptionBudget")]
        if len(found) != len(expected) or not all(spec in found for spec in expected.values()):
            yield f"expected budgets for {sorted(value for _, value in expected)}: all pods but one stay, and the head"


def ray_is_reached_by_its_own(release: Release) -> Iterator[str]:
    """Nothing passes but between the cluster's pods, from operator and autoscaler, and where it serves from clients."""
    for cluster in clusters(release):
        expected = _policies(cluster)
        found = [mapping(manifest.get("spec")) for manifest in release.of_kind("NetworkPolicy")]
        if len(found) != len(expected) or not all(spec in found for spec in expected.values()):
            missing = sorted(name for name, spec in expected.items() if spec not in found)
            yield f"expected the policies {sorted(expected)} and no others; missing or others: {missing}"


def _policies(cluster: Cluster) -> dict[str, Manifest]:
    """What each policy of a cluster says."""

    def selecting(**labels: str) -> Manifest:
        chosen: Mapping[str, object] = {f"ray.io/{name.replace('_', '-')}": value for name, value in labels.items()}
        return {"podSelector": {"matchLabels": {**cluster.labels, **chosen}}}

    both = {"policyTypes": ["Ingress", "Egress"]}
    own = [selecting()]
    names = {"to": NAMES, "ports": [{"protocol": "UDP", "port": 53}, *_tcp(53)]}
    policies = {
        "deny": selecting() | both,
        "nodes": selecting() | both | {"ingress": [{"from": own}], "egress": [{"to": own}, names]},
        "head": selecting(node_type="head")
        | both
        | {
            "ingress": [{"from": [OPERATOR], "ports": _tcp(8265, 8000)}],
            "egress": [{"to": INTERNET, "ports": _tcp(443, 6443)}],
        },
    }
    if cluster.serves:
        policies["allow"] = selecting(node_type="worker") | {
            "policyTypes": ["Ingress"],
            "ingress": [{"from": CLIENTS, "ports": _tcp(8000)}, {"from": MONITORING, "ports": _tcp(9090)}],
        }
    return policies


POLICIES = (
    ray_fields_are_known,
    ray_asks_for_a_token,
    ray_grows_within_bounds,
    ray_nodes_are_drained_pod_by_pod,
    ray_is_reached_by_its_own,
)
