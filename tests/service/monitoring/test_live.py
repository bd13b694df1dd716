"""Every rule and every panel against a service that runs and a Prometheus that scrapes it."""

from __future__ import annotations

import math
import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from service.metrics import Metrics
from service.monitoring.alerts import alerts
from service.monitoring.board import rows
from service.nvml import GpuMemory
from tests.service.models.processes import children_of
from tests.service.monitoring.prometheus import NoAnswer, Prometheus, prometheus
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
# Latencies, and scrapes that fail, say something of this machine alone.
OF_THIS_MACHINE = {"XmcEventLoopLag", "XmcDown", "XmcInstanceDown"}
# What only a GPU has.
OF_GPUS = {"xmc_gpu_memory_bytes", "xmc_gpu_memory_limit_bytes"}


def test_every_panel_every_rule_and_every_command_of_the_runbook_against_a_live_service(tmp_path: Path) -> None:
    """One test, since several would each need a service and a load of their own where tests run side by side."""
    with served(tmp_path) as (process, administrator):
        history = yesterday(process.port, time.time())
        with prometheus(process.port, tmp_path, rules=[RULES], history=history) as scraper:
            administrator.shadow()  # while Prometheus starts
            scraper.await_true('xmc_ready{job="xmcserve"} == 1')
            live_through(process, administrator, scraper)
            assert panels_without_data(scraper) == [panel.title for panel in PANELS if panel.needs_gpu]
            every_rule_is_evaluated_and_has_said_something(scraper)
            what_happened_is_alarming_and_nothing_else_is(scraper)
            variables_of_the_dashboard_have_values(scraper)
            environment = {"SERVICE": process.url, "PROMETHEUS": scraper.url, "KEY": administrator.secret}
            for alert in alerts():
                commands_of_the_runbook_work(alert.name, environment)
            assert process.stop(signal.SIGINT) == 0
            for name in ("XmcDown", "XmcInstanceDown"):
                scraper.seen(f'ALERTS{{alertname="{name}"}}')


def test_series_of_gpus_have_the_names_that_panels_ask_for() -> None:
    metrics = Metrics()
    metrics.watch_gpus(lambda: {"GPU-5f1c": GpuMemory(7 << 30, 80 << 30)})
    exposed = set(re.findall(r"^xmc_gpu_\w+", metrics.expose().decode(), re.MULTILINE))
    queries = [query.expr for panel in PANELS if panel.needs_gpu for query in panel.queries]
    assert exposed == OF_GPUS == {name for expr in queries for name in re.findall(r"xmc_\w+", expr)}


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


def panels_without_data(scraper: Prometheus) -> list[str]:
    """Titles of the panels of which a query has no answer with a number in it."""
    without = []
    for panel in PANELS:
        queries = [substituted(query.expr) for query in panel.queries]
        if panel.needs_gpu and not any(map(scraper.query, queries)):  # nothing to wait for
            without.append(panel.title)
            continue
        try:
            for query in queries:
                scraper.seen(query, is_a_number)
        except NoAnswer:
            without.append(panel.title)
    return without


def is_a_number(found: list[Any]) -> bool:
    """Whether a series among those has one."""
    return any(math.isfinite(float(series["value"][1])) for series in found)


def every_rule_is_evaluated_and_has_said_something(scraper: Prometheus) -> None:
    rules = scraper.rules()
    assert {rule["health"] for rule in rules} == {"ok"}, [rule for rule in rules if rule["health"] != "ok"]
    for rule in rules:
        if rule["type"] == "recording":
            scraper.seen(rule["name"])
    assert {rule["name"] for rule in rules if rule["type"] == "alerting"} == {alert.name for alert in alerts()}


def what_happened_is_alarming_and_nothing_else_is(scraper: Prometheus) -> None:
    for name in PROVOKED:
        scraper.seen(f'ALERTS{{alertname="{name}"}}')
    scraper.seen('ALERTS{alertname="XmcSwapFailed",alertstate="firing"}')
    active = {name for name in scraper.alerts() if "Latency" not in name and name not in OF_THIS_MACHINE}
    assert active <= PROVOKED


def variables_of_the_dashboard_have_values(scraper: Prometheus) -> None:
    assert scraper.get("label/model/values", **{"match[]": 'xmc_model_info{job="xmcserve"}'})
    assert scraper.get("label/instance/values", **{"match[]": 'xmc_ready{job="xmcserve"}'})


def commands_of_the_runbook_work(name: str, environment: dict[str, str]) -> None:
    """Those that ask the service or Prometheus; no cluster is here for the others, and no GPU."""
    section = RUNBOOK.partition(f"\n## {name}\n")[2]
    lines = [line for line in section.split("```\n")[1].splitlines() if line.startswith(("curl ", "promtool "))]
    assert lines, name
    for line in lines:
        command = ["bash", "-o", "pipefail", "-c", line]
        asked = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
        if "xmc_gpu" in line:
            assert asked.stdout == ""
        else:
            assert asked.returncode == 0, line
            assert asked.stdout.strip(), line
