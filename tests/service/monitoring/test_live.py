"""Every rule and every panel against a service that runs and a Prometheus that scrapes it."""

from __future__ import annotations

import math
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from service.metrics import Metrics
from service.monitoring.alerts import alerts
from service.monitoring.board import rows
from service.monitoring.panels import Panel
from service.nvml import GpuMemory
from tests.service.models.processes import children_of
from tests.service.monitoring.prometheus import Prometheus, prometheus
from tests.service.monitoring.scenario import Administrator, Load, served, yesterday
from tests.service.serving import Process

pytestmark = pytest.mark.prometheus

ROOT = Path(__file__).parents[3]
RUNBOOK = (ROOT / "service" / "monitoring" / "README.md").read_text(encoding="utf-8")
RULES = ROOT / "docker" / "monitoring" / "rules.yaml"
PANELS = [panel for row in rows() for panel in row.panels]
# What the load below provokes.
PROVOKED = {
    *("XmcErrorBudgetBurnsFast", "XmcErrorBudgetBurnsSlowly", "XmcRequestsRefused", "XmcSwapFailed", "XmcScoreDrift"),
    *("XmcModelStopped", "XmcNotReady"),
}
OF_THIS_MACHINE = {"XmcEventLoopLag", "XmcDown", "XmcInstanceDown"}
# What only a GPU has.
OF_GPUS = {"xmc_gpu_memory_bytes", "xmc_gpu_memory_limit_bytes"}


@dataclass
class Seen:
    """A Prometheus that has seen a load."""

    process: Process
    scraper: Prometheus
    secret: str


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    folder = tmp_path_factory.mktemp("monitored")
    with served(folder) as (process, administrator):
        history = yesterday(process.port, time.time())
        with prometheus(process.port, folder, rules=[RULES], history=history) as scraper:
            administrator.shadow()  # while Prometheus starts
            scraper.await_true('xmc_ready{job="xmcserve"} == 1')
            live_through(process, administrator, scraper)
            yield Seen(process, scraper, administrator.secret)


def live_through(process: Process, administrator: Administrator, scraper: Prometheus) -> None:
    """Have all that the dashboard shows happen, at last that a model dies."""
    administrator.swap()
    with Load(process.port, clients=6) as load:
        for status in (200, 422, 429, 504):
            load.until_answered(30, status)
        os.kill(min(children_of(process.process.pid)), signal.SIGKILL)
        load.until_answered(30, 503)
    scraper.await_true("xmc_ready == 0")
    scraper.await_true("min by (model) (version:xmc_top_score:queries_increase1h) > 500")
    scraper.await_evaluations(2)


def substituted(expr: str) -> str:
    """A panel's query as Grafana asks it, with everything chosen."""
    return re.sub(r"\$(namespace|instance|model)", ".*", expr.replace("$__rate_interval", "1m"))


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel.title)
def test_every_query_of_a_panel_has_data(panel: Panel, seen: Seen) -> None:
    for query in panel.queries:
        if panel.needs_gpu:
            assert set(re.findall(r"xmc_\w+", query.expr)) == OF_GPUS
            assert seen.scraper.query(substituted(query.expr)) == []
        else:
            seen.scraper.seen(substituted(query.expr), is_a_number)


def is_a_number(found: list[Any]) -> bool:
    """Whether a series among those has one."""
    return any(math.isfinite(float(series["value"][1])) for series in found)


def test_series_of_gpus_have_the_names_that_panels_and_alerts_ask_for() -> None:
    metrics = Metrics()
    metrics.watch_gpus(lambda: {"GPU-5f1c": GpuMemory(7 << 30, 80 << 30)})
    exposed = set(re.findall(r"^xmc_gpu_\w+", metrics.expose().decode(), re.MULTILINE))
    assert exposed == OF_GPUS


def test_every_rule_is_evaluated_and_has_said_something(seen: Seen) -> None:
    rules = seen.scraper.rules()
    assert {rule["health"] for rule in rules} == {"ok"}, [rule for rule in rules if rule["health"] != "ok"]
    for rule in rules:
        if rule["type"] == "recording":
            seen.scraper.seen(rule["name"])
    assert {rule["name"] for rule in rules if rule["type"] == "alerting"} == {alert.name for alert in alerts()}


def test_what_happened_is_alarming_and_nothing_else_is(seen: Seen) -> None:
    """Latencies are those of this machine, as is a scrape that fails; they prove nothing."""
    for name in PROVOKED:
        seen.scraper.seen(f'ALERTS{{alertname="{name}"}}')
    seen.scraper.seen('ALERTS{alertname="XmcSwapFailed",alertstate="firing"}')
    active = {name for name in seen.scraper.alerts() if "Latency" not in name and name not in OF_THIS_MACHINE}
    assert active <= PROVOKED


def test_variables_of_the_dashboard_have_values(seen: Seen) -> None:
    assert seen.scraper.get("label/model/values", **{"match[]": 'xmc_model_info{job="xmcserve"}'})
    assert seen.scraper.get("label/instance/values", **{"match[]": 'xmc_ready{job="xmcserve"}'})


@pytest.mark.parametrize("name", [alert.name for alert in alerts()])
def test_commands_of_the_runbook_work(name: str, seen: Seen) -> None:
    """Those that ask the service or Prometheus; no cluster is here for the others."""
    section = RUNBOOK.partition(f"\n## {name}\n")[2]
    lines = [line for line in section.split("```\n")[1].splitlines() if line.startswith(("curl ", "promtool "))]
    environment = {**os.environ, "SERVICE": seen.process.url, "PROMETHEUS": seen.scraper.url, "KEY": seen.secret}
    assert lines or name == "XmcGpuMemoryHigh"
    for line in lines:
        command = ["bash", "-o", "pipefail", "-c", line]
        asked = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if "xmc_gpu" in line:
            assert asked.stdout == ""
        else:
            assert asked.returncode == 0, line
            assert asked.stdout.strip(), line


def test_when_it_ends_it_is_missed(seen: Seen) -> None:
    """The last: the service is gone afterwards."""
    assert seen.process.stop(signal.SIGINT) == 0
    for name in ("XmcDown", "XmcInstanceDown"):
        seen.scraper.seen(f'ALERTS{{alertname="{name}"}}')
