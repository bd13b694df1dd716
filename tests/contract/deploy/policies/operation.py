"""Policies on a life: a pod gets traffic when it can answer, goes when it is asked to, and is replaced by another."""

from __future__ import annotations

from collections.abc import Iterator

from service.http.server import GRACE_SECONDS, LAST_WORDS_SECONDS
from tests.contract.deploy.release import Pod, Release, at, environment, items, mapping, number

PROBES = {"startupProbe": "/readyz", "readinessProbe": "/readyz", "livenessProbe": "/livez"}
MARGIN_SECONDS = 10
ROLLING = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}


def probes_ask_the_right_question(release: Release) -> Iterator[str]:
    """Traffic waits for the models, a restart for nothing but a process that is stuck."""
    for pod in release.pods:
        port = "http1" if pod.by_kserve else "http"
        for name, path in PROBES.items():
            probe = mapping(pod.service.get(name))
            if probe.get("httpGet") != {"path": path, "port": port}:
                yield f"{name}: expected a question for {path}"
            if not 2 <= number(probe.get("timeoutSeconds")) <= number(probe.get("periodSeconds")):
                yield f"{name}: expected an answer to have two seconds, and to be there before the next question"


def probes_have_patience(release: Release) -> Iterator[str]:
    """Five minutes to load, one minute before a restart, and out of the Service within the drain."""
    for pod in release.pods:
        startup, liveness, readiness = (
            _seconds(pod, name) for name in ("startupProbe", "livenessProbe", "readinessProbe")
        )
        if startup != 300:
            yield f"startupProbe: expected five minutes, found {startup} s"
        if liveness != 60:
            yield f"livenessProbe: expected one minute, found {liveness} s"
        if not 0 < readiness <= _sleep_seconds(pod):
            yield f"readinessProbe: expected it to notice within the preStop sleep, found {readiness} s"


def _seconds(pod: Pod, name: str) -> float:
    probe = mapping(pod.service.get(name))
    return number(probe.get("periodSeconds")) * number(probe.get("failureThreshold"))


def _sleep_seconds(pod: Pod) -> float:
    return number(at(pod.service, "lifecycle.preStop.sleep.seconds"))


def pods_are_killed_only_after_they_could_drain(release: Release) -> Iterator[str]:
    """What preStop, drain and last answers may take, and some more."""
    for pod in release.pods:
        drain = environment(pod.service).get("XMC_DRAIN_SECONDS")
        if not (isinstance(drain, str) and drain.isdigit() and int(drain) >= 10):
            yield "XMC_DRAIN_SECONDS: expected 10 s or more, by which load balancers have noticed"
            continue
        if _sleep_seconds(pod) < 5:
            yield "expected a preStop sleep of 5 s, by which the pod has left its Service"
        needed = _sleep_seconds(pod) + int(drain) + LAST_WORDS_SECONDS + GRACE_SECONDS + MARGIN_SECONDS
        if number(pod.spec.get("terminationGracePeriodSeconds")) < needed:
            yield f"terminationGracePeriodSeconds: expected at least {needed}"


def rollouts_never_have_fewer_pods_than_before(release: Release) -> Iterator[str]:
    """The new pod answers before the old one goes."""
    for pod in release.pods:
        if pod.strategy != ROLLING:
            yield f"expected the strategy {ROLLING}, found {pod.strategy}"


def nodes_are_drained_pod_by_pod(release: Release) -> Iterator[str]:
    """A budget of its own for each Deployment's pods."""
    for manifest in release.of_kind("Deployment"):
        labels = at(manifest, "spec.template.metadata.labels")
        if at(manifest, "spec.selector.matchLabels") != labels:
            yield "expected the Deployment to select its own pods"
        budgets = [
            mapping(budget.get("spec"))
            for budget in release.of_kind("PodDisruptionBudget")
            if at(budget, "spec.selector.matchLabels") == labels
        ]
        if [(budget.get("maxUnavailable"), budget.get("unhealthyPodEvictionPolicy")) for budget in budgets] != [
            (1, "AlwaysAllow")
        ]:
            yield "expected one budget for its pods: one at a time, broken ones whenever asked for"


def kserve_speaks_our_protocol(release: Release) -> Iterator[str]:
    """The runtime says what it serves and how, and the service of it asks for that."""
    for manifest in release.of_kind("InferenceService"):
        model = mapping(at(manifest, "spec.predictor.model"))
        runtime = mapping(release.named("ServingRuntime", model.get("runtime")).get("spec"))
        if runtime.get("multiModel") is not False or runtime.get("protocolVersions") != ["v2"]:
            yield "expected a runtime of one bundle, for the Open Inference Protocol v2"
        if model.get("protocolVersion") != "v2":
            yield "expected the Open Inference Protocol v2"
        formats = items(runtime.get("supportedModelFormats"))
        if formats != [{"name": at(model, "modelFormat.name"), "version": "1", "autoSelect": True}]:
            yield "expected the runtime to be there for the model's format"
        annotations = {"prometheus.kserve.io/port": "8000", "prometheus.kserve.io/path": "/metrics"}
        if runtime.get("annotations") != annotations:
            yield f"expected the annotations {annotations}"
        if model.get("storageUri") != "pvc://xmcserve-models/tags":
            yield "expected a bundle on the volume of models"
        ports = items(items(runtime.get("containers"))[0].get("ports")) if items(runtime.get("containers")) else []
        if [port.get("protocol") for port in ports] != ["TCP"]:
            yield "expected one port"


POLICIES = (
    probes_ask_the_right_question,
    probes_have_patience,
    pods_are_killed_only_after_they_could_drain,
    rollouts_never_have_fewer_pods_than_before,
    nodes_are_drained_pod_by_pod,
    kserve_speaks_our_protocol,
)
