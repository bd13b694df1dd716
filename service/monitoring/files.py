"""The files that are made of rules and panels: for a Prometheus of one's own and for Kubernetes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from service.monitoring.alerts import alerts
from service.monitoring.grafana import dashboard_json
from service.monitoring.recordings import recordings
from service.monitoring.rules import JOB

HEAD = "# Written by `python -m service.monitoring`, not by hand.\n"
LINE_LENGTH = 120


def files() -> Mapping[str, str]:
    """Texts by path, relative to the project's root."""
    return {
        "docker/monitoring/rules.yaml": HEAD + _yaml(rules()),
        "k8s/components/monitoring/prometheusrule.yaml": HEAD + _yaml(_prometheus_rule()),
        # Here, where kustomize can read it; compose.yaml mounts it from here as well.
        "k8s/components/monitoring/xmcserve.json": dashboard_json(),
    }


def rules() -> dict[str, Any]:
    """What Prometheus reads as a file of rules."""
    recorded = [_without_nothing(record=one.record, expr=one.expr, labels=dict(one.labels)) for one in recordings()]
    alarming = [
        _without_nothing(
            alert=one.name,
            expr=one.expr,
            **{"for": one.pending},
            labels={"severity": one.severity},
            annotations={"summary": one.summary, "description": one.description, "runbook": one.runbook},
        )
        for one in alerts()
    ]
    # One group, so that an alert is asked after what it reads was recorded.
    return {"groups": [{"name": JOB, "rules": [*recorded, *alarming]}]}


def _prometheus_rule() -> dict[str, Any]:
    """The same as the operator's resource."""
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": JOB, "labels": {"app.kubernetes.io/name": JOB}},
        "spec": rules(),
    }


def _without_nothing(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value}


def _yaml(content: dict[str, Any]) -> str:
    return yaml.safe_dump(content, sort_keys=False, width=LINE_LENGTH, allow_unicode=True)
