"""Policies on the network: who reaches the pods, whom they reach, and by which names."""

from __future__ import annotations

from collections.abc import Iterator

from tests.contract.deploy.release import Pod, Release, at, items, mapping
from tests.contract.deploy.rendering import Manifest

CLIENTS = [
    {"podSelector": {}},
    {"namespaceSelector": {"matchLabels": {"xmcserve/clients": "true"}}},
]
MONITORING = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]
NAMES = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}}]
INTERNET = [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["169.254.0.0/16"]}}]
FETCHING = [
    {"to": NAMES, "ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]},
    {"to": INTERNET, "ports": [{"protocol": "TCP", "port": 443}]},
]
# Of the paths behind a gateway. /admin and /metrics are none of them.
PUBLIC_PATHS = ["/predict", "/v1", "/v2"]


def _of(release: Release, pod: Pod) -> list[Manifest]:
    """The policies that select a pod."""
    return [
        mapping(manifest.get("spec"))
        for manifest in release.of_kind("NetworkPolicy")
        if _selects(at(manifest, "spec.podSelector"), pod)
    ]


def _selects(selector: object, pod: Pod) -> bool:
    """Whether a selector selects a pod by labels, and by nothing else."""
    wanted = mapping(mapping(selector).get("matchLabels"))
    return selector == {"matchLabels": wanted} and bool(wanted) and wanted.items() <= pod.labels.items()


def nothing_passes_by_default(release: Release) -> Iterator[str]:
    """One policy names both directions and lets nothing pass; it stands whatever becomes of the others."""
    for pod in release.pods:
        denial = {"podSelector": {"matchLabels": pod.labels}, "policyTypes": ["Ingress", "Egress"]}
        if _of(release, pod).count(denial) != 1:
            yield "expected one policy that denies both directions"
        if len(_of(release, pod)) != len(release.of_kind("NetworkPolicy")):
            yield "expected all policies to be for the pods"


def clients_and_monitoring_come_in(release: Release) -> Iterator[str]:
    """Clients to one port, monitoring to the other, nobody else to any."""
    for pod in release.pods:
        rules = [rule for spec in _of(release, pod) for rule in items(spec.get("ingress"))]
        http: Manifest = {"from": CLIENTS, "ports": [{"protocol": "TCP", "port": "http"}]}
        metrics: Manifest = {"from": MONITORING, "ports": [{"protocol": "TCP", "port": "metrics"}]}
        kserve: Manifest = {"from": CLIENTS + MONITORING, "ports": [{"protocol": "TCP", "port": 8000}]}
        if rules != ([kserve] if pod.by_kserve else [http, metrics]):
            yield f"expected clients and monitoring to come in, found {rules}"
        letting = [spec for spec in _of(release, pod) if "ingress" in spec]
        if [(spec.get("policyTypes"), at(spec, "podSelector.matchLabels")) for spec in letting] != [
            (["Ingress"], pod.labels)
        ]:
            yield "expected one policy for what comes in, for this release alone"


def nothing_goes_out_but_for_bundles(release: Release) -> Iterator[str]:
    """Only pods that fetch reach a name server and HTTPS, and never where clouds hand out credentials."""
    for pod in release.pods:
        rules = [rule for spec in _of(release, pod) for rule in items(spec.get("egress"))]
        if rules != (FETCHING if pod.init else []):
            yield f"expected nothing to go out but for bundles, found {rules}"
        types = [spec.get("policyTypes") for spec in _of(release, pod) if "egress" in spec]
        if types != ([["Egress"]] if pod.init else []):
            yield "expected a policy for what goes out where bundles are fetched"


def services_reach_the_pods(release: Release) -> Iterator[str]:
    """Each Deployment has one Service, within the cluster, for all ports of its pods and for no other release's."""
    for pod in release.pods:
        if pod.by_kserve:
            continue
        services = [mapping(manifest.get("spec")) for manifest in release.of_kind("Service")]
        if [(spec.get("type"), spec.get("selector")) for spec in services] != [("ClusterIP", pod.labels)]:
            yield "expected one Service within the cluster, for these pods"
        for spec in services:
            ports = items(spec.get("ports"))
            expected = [
                {"name": "http", "port": 80, "targetPort": "http", "appProtocol": "http"},
                {"name": "metrics", "port": 9090, "targetPort": "metrics", "appProtocol": "http"},
            ]
            if ports != expected:
                yield f"expected the ports {expected}, found {ports}"


def releases_can_be_told_apart(release: Release) -> Iterator[str]:
    """Two in one namespace share a name and differ in their instance."""
    for manifest in release.of_kind("Deployment"):
        labels = mapping(at(manifest, "spec.template.metadata.labels"))
        instance = str(at(manifest, "metadata.name")).removeprefix("xmcserve-")
        if labels != {"app.kubernetes.io/name": "xmcserve", "app.kubernetes.io/instance": instance}:
            yield f"expected pods of xmcserve, instance {instance}, found {labels}"


def gateways_lead_to_queries_alone(release: Release) -> Iterator[str]:
    """To both releases by weights, and to no path that is for administrators."""
    for manifest in release.of_kind("HTTPRoute"):
        rules = items(at(manifest, "spec.rules"))
        if len(rules) != 1:
            yield "expected one rule"
        for rule in rules:
            paths = [mapping(match.get("path")) for match in items(rule.get("matches"))]
            if paths != [{"type": "PathPrefix", "value": value} for value in PUBLIC_PATHS]:
                yield f"expected the paths {PUBLIC_PATHS}"
            backends = items(rule.get("backendRefs"))
            if [(entry.get("name"), entry.get("port")) for entry in backends] != [
                ("xmcserve", 80),
                ("xmcserve-canary", 80),
            ]:
                yield "expected the Services of both releases"
            weights = [entry.get("weight") for entry in backends]
            if not (all(isinstance(weight, int) and weight > 0 for weight in weights) and weights[:1] > weights[1:]):
                yield "expected weights, the canary's being the smaller"


POLICIES = (
    nothing_passes_by_default,
    clients_and_monitoring_come_in,
    nothing_goes_out_but_for_bundles,
    services_reach_the_pods,
    releases_can_be_told_apart,
    gateways_lead_to_queries_alone,
)
