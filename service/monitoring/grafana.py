"""The dashboard as Grafana imports it."""

from __future__ import annotations

import json
from typing import TypeVar

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    BigValueGraphMode,
    GraphThresholdsStyleMode,
    LegendDisplayMode,
    LegendPlacement,
    TooltipDisplayMode,
    VisibilityMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DataSourceRef,
    DataTransformerConfig,
    Threshold,
    ThresholdsMode,
    VariableOption,
    VariableRefresh,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from service.monitoring.board import rows
from service.monitoring.panels import Panel, Query, Row
from service.monitoring.rules import JOB

TITLE = "xmcserve"
# Stable, so that links to the dashboard stay good.
UID = "xmcserve"
DATASOURCE = DataSourceRef(type_val="prometheus", uid="$datasource")
HEIGHTS = {"stat": 4, "lines": 7, "table": 7}
# Prometheus' own name for the value of an instant query; here it is always a count.
HIDDEN_COLUMNS = {"Time": True}

Drawn = TypeVar("Drawn", stat.Panel, table.Panel, timeseries.Panel)


def dashboard_json() -> str:
    """The whole dashboard."""
    board = (
        dashboard.Dashboard(TITLE)
        .uid(UID)
        .description("Online top-k label queries. Written by python -m service.monitoring, not by hand.")
        .tags(["xmcserve"])
        .readonly()
        .refresh("30s")
        .time("now-3h", "now")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
        .with_variable(_variable("namespace", f'label_values(xmc_ready{{job="{JOB}"}}, namespace)'))
        .with_variable(
            _variable("instance", f'label_values(xmc_ready{{job="{JOB}",namespace=~"$namespace"}}, instance)')
        )
        .with_variable(
            _variable("model", f'label_values(xmc_model_info{{job="{JOB}",namespace=~"$namespace"}}, model)')
        )
    )
    for row in rows():
        _add(board, row)
    return json.dumps(board.build(), cls=JSONEncoder, indent=1, sort_keys=True) + "\n"


def _variable(name: str, query: str) -> dashboard.QueryVariable:
    """A choice among the values of a label, of several or all."""
    return (
        dashboard.QueryVariable(name)
        .datasource(DATASOURCE)
        .query(query)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(VariableOption(selected=True, text="All", value="$__all"))
    )


def _add(board: dashboard.Dashboard, row: Row) -> None:
    board.with_row(dashboard.Row(row.title))
    for panel in row.panels:
        board.with_panel(_PANELS[panel.kind](panel))


def _stat(panel: Panel) -> stat.Panel:
    drawn = stat.Panel().graph_mode(BigValueGraphMode.AREA).color_mode(BigValueColorMode.VALUE)
    return _common(drawn, panel)


def _lines(panel: Panel) -> timeseries.Panel:
    drawn = (
        timeseries.Panel()
        .fill_opacity(8)
        .show_points(VisibilityMode.NEVER)
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
        .legend(
            common.VizLegendOptions()
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(True)
        )
    )
    if panel.limit is not None:
        style = common.GraphThresholdsStyleConfig().mode(GraphThresholdsStyleMode.DASHED)
        drawn.thresholds_style(style)
    if panel.unit == "percentunit":
        drawn.axis_soft_max(0.01)
    return _common(drawn, panel)


def _table(panel: Panel) -> table.Panel:
    drawn = table.Panel().with_transformation(
        DataTransformerConfig(
            id_val="organize", options={"excludeByName": HIDDEN_COLUMNS, "renameByName": {"Value": "count"}}
        )
    )
    return _common(drawn, panel)


def _common(drawn: Drawn, panel: Panel) -> Drawn:
    """What panels of all kinds have."""
    drawn = (
        drawn.title(panel.title)
        .description(panel.description)
        .datasource(DATASOURCE)
        .unit(panel.unit)
        .thresholds(_thresholds(panel.limit))
        .span(panel.width)
        .height(HEIGHTS[panel.kind])
    )
    for number, query in enumerate(panel.queries):
        drawn = drawn.with_target(_target(query, "ABCDEFGH"[number], panel))
    return drawn


def _target(query: Query, reference: str, panel: Panel) -> prometheus.Dataquery:
    target = (
        prometheus.Dataquery().datasource(DATASOURCE).expr(query.expr).legend_format(query.legend).ref_id(reference)
    )
    if panel.kind == "table":
        return target.instant().format(PromQueryFormat.TABLE)
    return target.range()


def _thresholds(limit: float | None) -> dashboard.ThresholdsConfig:
    """Green, and red beyond a limit."""
    steps = [Threshold(color="green")]
    if limit is not None:
        steps.append(Threshold(color="red", value=limit))
    return dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)


_PANELS = {"stat": _stat, "lines": _lines, "table": _table}
