"""What a panel of the dashboard is, and the pieces of which its queries are made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from service.monitoring.rules import ASKING, JOB

Kind = Literal["stat", "lines", "table"]
# Grafana's names of units.
Unit = Literal["short", "s", "bytes", "percentunit", "reqps", "cps"]

# What a reader of the dashboard chose; Grafana fills it in. "All" matches an absent label, too.
OWNER = f'job="{JOB}",namespace=~"$namespace"'
INSTANCE = f'{OWNER},instance=~"$instance"'
MODEL = f'{INSTANCE},model=~"$model"'
OF_REQUESTS = f'{INSTANCE},endpoint=~"{ASKING}"'
# At least four times as long as what lies between two scrapes.
WINDOW = "$__rate_interval"

# Columns of the dashboard's 24.
QUARTER, THIRD, HALF, WHOLE = 6, 8, 12, 24


@dataclass(frozen=True)
class Query:
    """A question to Prometheus.

    Attributes:
        expr: the question, with Grafana's variables in it.
        legend: name of each series of the answer; labels stand in `{{ }}`.
    """

    expr: str
    legend: str


@dataclass(frozen=True)
class Panel:
    """A panel of the dashboard.

    Attributes:
        title: unique.
        description: what to make of it.
        kind: one number ("stat"), lines over time, or a table of labels.
        unit: of the values.
        queries: what it shows.
        limit: an objective or a threshold of an alert, beyond which it turns red.
        width: in columns.
        needs_gpu: whether there is nothing to see without one.
    """

    title: str
    description: str
    kind: Kind
    unit: Unit
    queries: tuple[Query, ...]
    limit: float | None = None
    width: int = QUARTER
    needs_gpu: bool = False


@dataclass(frozen=True)
class Row:
    """Panels under a heading."""

    title: str
    panels: tuple[Panel, ...]


def stat(title: str, description: str, unit: Unit, expr: str, limit: float | None = None) -> Panel:
    """A panel with one number."""
    return Panel(title, description, "stat", unit, (Query(expr, title),), limit, width=4)


def lines(
    title: str, description: str, unit: Unit, *queries: Query, limit: float | None = None, width: int = QUARTER
) -> Panel:
    """A panel with lines over time."""
    return Panel(title, description, "lines", unit, queries, limit, width)


def rate(counter: str, matchers: str, *by: str) -> str:
    """How fast counters grow, per second, summed by labels."""
    return f"sum by ({', '.join(by)}) (rate({counter}{{{matchers}}}[{WINDOW}]))"


def mean(histogram: str, matchers: str, *by: str) -> str:
    """The mean of what was observed of late."""
    return f"{rate(f'{histogram}_sum', matchers, *by)} / {rate(f'{histogram}_count', matchers, *by)}"


def quantile(share: float, histogram: str, matchers: str, *by: str) -> str:
    """A quantile of what was observed of late."""
    return f"histogram_quantile({share}, {rate(f'{histogram}_bucket', matchers, *by, 'le')})"
