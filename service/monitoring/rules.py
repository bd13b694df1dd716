"""What a rule is, and the pieces of which queries are made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["critical", "warning"]

JOB = "xmcserve"
# Who promises something: all instances of a namespace together. Outside Kubernetes there is no such label.
OWNER = "namespace, job"
INSTANCE = f"{OWNER}, instance, pod"
VERSION = f"{OWNER}, model, version"
# Routes, as `xmc_requests` names them, that ask for labels: over HTTP, the Open Inference Protocol, and that over gRPC.
ASKING = "/predict|/v2/models/.+/infer|/inference[.]GRPCInferenceService/ModelInfer"


@dataclass(frozen=True)
class Recording:
    """A query whose answer Prometheus keeps as a series of its own.

    Attributes:
        record: the series.
        expr: the query.
        labels: that are added.
    """

    record: str
    expr: str
    labels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Alert:
    """Something that somebody is told.

    Attributes:
        name: of the alert, and of its section in the runbook.
        expr: a query; each series in its answer is an alert.
        pending: how long it must have been so.
        severity: "critical" must be looked at now, "warning" this week.
        summary: one line.
        description: what it means, in a sentence; `{{ $labels }}` and `{{ $value }}` are filled in.
    """

    name: str
    expr: str
    pending: str
    severity: Severity
    summary: str
    description: str

    @property
    def runbook(self) -> str:
        """Where to read on."""
        return f"service/monitoring/README.md#{self.name.lower()}"


def series(name: str, *matchers: str) -> str:
    """A series of the service's instances.

    Args:
        name: of the series.
        matchers: such as `code=~"5.."`.
    """
    chosen = ",".join((f'job="{JOB}"', *matchers))
    return f"{name}{{{chosen}}}"


def asking(name: str, *matchers: str) -> str:
    """A series of the service's instances, of requests for labels alone."""
    return series(name, f'endpoint=~"{ASKING}"', *matchers)


def rate(selector: str, window: str, by: str = OWNER) -> str:
    """How fast counters grow, per second, summed."""
    return f"sum by ({by}) (rate({selector}[{window}]))"
