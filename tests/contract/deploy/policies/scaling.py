"""Policies on how many pods there are: never one alone, one who decides, and slowly downwards."""

from __future__ import annotations

import re
from collections.abc import Iterator

from service.models.worker import DEFAULT_BATCH_ROWS
from tests.contract.deploy.release import Release, at, items, mapping, number
from tests.contract.deploy.rendering import Manifest

TARGET = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "xmcserve"}
# Twice as many within a minute, one fewer a minute once it was quiet for five.
BEHAVIOUR = {
    "scaleUp": {
        "stabilizationWindowSeconds": 0,
        "policies": [{"type": "Percent", "value": 100, "periodSeconds": 60}],
    },
    "scaleDown": {
        "stabilizationWindowSeconds": 300,
        "policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}],
    },
}


def one_decides(release: Release) -> Iterator[str]:
    """Either a number or one autoscaler: two would undo each other's work, and a number that of one."""
    scalers = release.of_kind("HorizontalPodAutoscaler") + release.of_kind("ScaledObject")
    for manifest in release.of_kind("Deployment"):
        replicas = at(manifest, "spec.replicas")
        if len(scalers) > 1:
            yield "expected one autoscaler, found several"
        if scalers and replicas is not None:
            yield "expected the number of pods to be left to the autoscaler"
        if not scalers and number(replicas) < 2:
            yield "expected two pods or more: one of them is replaced at a time"
    for manifest in release.of_kind("InferenceService"):
        predictor = mapping(at(manifest, "spec.predictor"))
        if not 2 <= number(predictor.get("minReplicas")) < number(predictor.get("maxReplicas")):
            yield "expected two pods or more, and room for more"


def autoscalers_follow_what_waits(release: Release) -> Iterator[str]:
    """The autoscaler of Kubernetes: bounds, metric, and a target that can be reached."""
    for manifest in release.of_kind("HorizontalPodAutoscaler"):
        spec = mapping(manifest.get("spec"))
        if spec.get("scaleTargetRef") != TARGET:
            yield "expected the Deployment of the set as its target"
        if not 2 <= number(spec.get("minReplicas")) < number(spec.get("maxReplicas")):
            yield "expected two pods or more, and room for more"
        if spec.get("behavior") != BEHAVIOUR:
            yield f"behavior: expected {BEHAVIOUR}"
        yield from _metric_faults(items(spec.get("metrics")))


def _metric_faults(metrics: list[Manifest]) -> Iterator[str]:
    if [(metric.get("type"), at(metric, "pods.metric.name")) for metric in metrics] != [("Pods", "xmc_queue_rows")]:
        yield "expected the queries that wait for a pod to decide"
    for metric in metrics:
        target = mapping(at(metric, "pods.target"))
        if target.get("type") != "AverageValue" or not _reachable(target.get("averageValue")):
            yield "expected a target that a queue under overload still exceeds"


def _reachable(threshold: object) -> bool:
    """Under overload a queue is held down to one batch."""
    return isinstance(threshold, str) and threshold.isdigit() and 0 < int(threshold) <= DEFAULT_BATCH_ROWS["cpu"] // 2


def keda_follows_what_waits(release: Release) -> Iterator[str]:
    """KEDA: the same, and what happens when nobody can tell."""
    for manifest in release.of_kind("ScaledObject"):
        spec = mapping(manifest.get("spec"))
        if spec.get("scaleTargetRef") != TARGET:
            yield "expected the Deployment of the set as its target"
        least, most = number(spec.get("minReplicaCount")), number(spec.get("maxReplicaCount"))
        if not 2 <= least < most:
            yield "expected two pods or more, and room for more"
        if at(spec, "advanced.horizontalPodAutoscalerConfig.behavior") != BEHAVIOUR:
            yield f"behavior: expected {BEHAVIOUR}"
        if not 5 <= number(spec.get("pollingInterval")) <= 30:
            yield "pollingInterval: expected some seconds"
        fallback = mapping(spec.get("fallback"))
        if (
            not least <= number(fallback.get("replicas")) <= most
            or not 0 < number(fallback.get("failureThreshold")) < 5
        ):
            yield "expected a number of pods for when the metric is gone"
        if fallback.get("behavior") != "currentReplicasIfHigher":
            yield "expected the loss of Prometheus to take no pod away"
        yield from _trigger_faults(items(spec.get("triggers")))


def _trigger_faults(triggers: list[Manifest]) -> Iterator[str]:
    if [(trigger.get("type"), trigger.get("metricType")) for trigger in triggers] != [("prometheus", "AverageValue")]:
        yield "expected one question to Prometheus, for a value that pods share"
    for trigger in triggers:
        metadata = mapping(trigger.get("metadata"))
        if not str(metadata.get("serverAddress")).startswith("http://"):
            yield "expected the address of Prometheus"
        if not re.fullmatch(r"sum\(avg_over_time\(xmc_queue_rows\{[^}]*\}\[1m\]\)\)", str(metadata.get("query"))):
            yield "expected all queries that wait, on the average of a minute"
        if not _reachable(metadata.get("threshold")):
            yield "expected a threshold that a queue under overload still exceeds"
        if metadata.get("ignoreNullValues") != "false":
            yield "expected a query that finds nothing to be a failure"


POLICIES = (one_decides, autoscalers_follow_what_waits, keda_follows_what_waits)
