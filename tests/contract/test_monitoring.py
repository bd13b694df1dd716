"""Rules, dashboard and runbook: written from the code, of series that there are, and tested one by one."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.cli import main
from service.metrics import SECONDS, Metrics
from service.monitoring import __main__ as writer
from service.monitoring.alerts import alerts
from service.monitoring.board import rows
from service.monitoring.files import files, rules
from service.monitoring.objectives import AVAILABILITY, LATENCY_SECONDS, LATENCY_SHARE
from service.monitoring.panels import WHOLE
from service.monitoring.recordings import recordings
from service.monitoring.rules import ASKING
from tests.bundles import write_bundle
from tests.service.serving import serving

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "docker" / "monitoring"
RULE_TESTS = sorted((Path(__file__).parent / "monitoring").glob("*.yaml"))
RUNBOOK = (ROOT / "service" / "monitoring" / "README.md").read_text(encoding="utf-8")
ALERTS = {alert.name: alert for alert in alerts()}
PANELS = [panel for row in rows() for panel in row.panels]
PROGRAMS = {"curl", "kubectl", "nvidia-smi", "promtool", "xmc-serve"}


def series_of_the_service() -> set[str]:
    """Names as they are stored: of histograms three, of counters with their suffix."""
    metrics = Metrics()
    metrics.watch_gpus(dict)
    names = set()
    for family in metrics.registry.collect():
        suffixes = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("_total",)}.get(family.type, ("",))
        names |= {family.name + suffix for suffix in suffixes}
    return names


def series_in(expr: str) -> set[str]:
    """Names of the service's own series in a query; those that rules record have colons."""
    return set(re.findall(r"(?<![\w:])(?:xmc|process)_\w+\b(?!:)", expr))


def queries() -> list[str]:
    """All that rules and panels ask."""
    asked = [one.expr for one in (*recordings(), *alerts())]
    return asked + [query.expr for panel in PANELS for query in panel.queries]


def rule_tests() -> list[dict[str, Any]]:
    """Every test of `promtool`, of all files."""
    return [test for path in RULE_TESTS for test in yaml.safe_load(path.read_text(encoding="utf-8"))["tests"]]


def sections() -> dict[str, str]:
    """The runbook's sections by their headings."""
    _, *parts = re.split(r"^## ", RUNBOOK.partition("# Runbook")[2], flags=re.MULTILINE)
    return {part.partition("\n")[0]: part.partition("\n")[2] for part in parts}


def commands(section: str) -> list[str]:
    """The lines of the first block of code."""
    return section.split("```\n")[1].splitlines()


@pytest.mark.parametrize("name", files())
def test_files_are_what_the_code_says(name: str) -> None:
    assert (ROOT / name).read_text(encoding="utf-8") == files()[name], "write them anew: python -m service.monitoring"


def test_the_command_writes_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["monitoring", str(tmp_path)])
    writer.main()
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()} == set(files())


def test_kubernetes_gets_the_same_rules() -> None:
    text = (ROOT / "k8s" / "components" / "monitoring" / "prometheusrule.yaml").read_text(encoding="utf-8")
    assert yaml.safe_load(text)["spec"] == rules()


def test_queries_ask_for_series_that_there_are_and_for_all_of_them() -> None:
    asked = {name for expr in queries() for name in series_in(expr)}
    there = series_of_the_service()
    assert asked <= there
    of_histograms = {name for name in there if name.endswith(("_bucket", "_sum", "_count"))}
    unasked = {name for name in there - of_histograms - asked if name.startswith("xmc_")}
    unasked |= {name for name in of_histograms if name.endswith("_bucket") and not asked & variants(name)}
    assert unasked == set()


def variants(bucket: str) -> set[str]:
    return {bucket.removesuffix("_bucket") + suffix for suffix in ("_bucket", "_sum", "_count")}


def test_queries_ask_for_what_was_recorded() -> None:
    recorded = {one.record for one in recordings()}
    asked = {name for expr in queries() for name in re.findall(r"\b(?:job|instance|version):[\w:]+", expr)}
    assert asked == recorded


def test_the_objective_is_a_bound_of_a_bucket() -> None:
    """Or nothing would be counted."""
    assert LATENCY_SECONDS in SECONDS
    metrics = Metrics()
    metrics.observe_request("/predict", "", 200, 0.1)
    assert (
        f'xmc_request_seconds_bucket{{endpoint="/predict",le="{LATENCY_SECONDS:g}"}} 1.0' in metrics.expose().decode()
    )


def test_promises_are_about_requests_for_labels(tmp_path: Path) -> None:
    write_bundle(tmp_path / "tiny")
    with serving(tmp_path / "tiny") as service:
        paths = service.client.get("/openapi.json").json()["paths"]
    asking = {path for path, methods in paths.items() if "post" in methods and not path.startswith("/admin")}
    assert {path for path in paths if re.fullmatch(ASKING, path)} == asking
    assert re.fullmatch(ASKING, "/inference.GRPCInferenceService/ModelInfer")
    assert not re.fullmatch(ASKING, "/inference.GRPCInferenceService/ServerReady")


@pytest.mark.prometheus
def test_promtool_finds_nothing_wrong() -> None:
    for command in (("check", "rules", MONITORING / "rules.yaml"), ("check", "config", MONITORING / "prometheus.yaml")):
        checked = subprocess.run(["promtool", *command], capture_output=True, text=True, check=False)
        assert checked.returncode == 0, checked.stderr


@pytest.mark.prometheus
@pytest.mark.parametrize("path", RULE_TESTS, ids=lambda path: path.stem)
def test_rules_say_what_they_must(path: Path) -> None:
    tested = subprocess.run(["promtool", "test", "rules", str(path)], capture_output=True, text=True, check=False)
    assert tested.returncode == 0, tested.stdout + tested.stderr


@pytest.mark.parametrize("name", ALERTS)
def test_every_alert_is_heard_and_is_silent_in_a_test(name: str) -> None:
    asked = [one for test in rule_tests() for one in test.get("alert_rule_test", ()) if one["alertname"] == name]
    assert any(one.get("exp_alerts") for one in asked)
    assert any(not one.get("exp_alerts") for one in asked)


def test_every_recording_rule_has_a_test() -> None:
    asked = [one["expr"] for test in rule_tests() for one in test.get("promql_expr_test", ()) if one["exp_samples"]]
    tested = {name for expr in asked for name in re.findall(r"\b(?:job|instance|version):[\w:]+", expr)}
    assert {one.record for one in recordings()} == tested


def test_panels_have_titles_of_their_own_and_fill_whole_lines() -> None:
    titles = [(row.title, panel.title) for row in rows() for panel in row.panels]
    assert len({title for _, title in titles}) == len(titles)
    board = json.loads((ROOT / "k8s" / "components" / "monitoring" / "xmcserve.json").read_text(encoding="utf-8"))
    places = [panel["gridPos"] for panel in board["panels"] if panel["type"] != "row"]
    assert len(places) == len(PANELS)
    for top in {place["y"] for place in places}:
        assert sum(place["w"] for place in places if place["y"] == top) == WHOLE


def test_the_runbook_has_a_section_for_each_alert_and_no_other() -> None:
    assert list(sections()) == list(ALERTS)
    for alert in ALERTS.values():
        path, _, anchor = alert.runbook.partition("#")
        assert (ROOT / path).read_text(encoding="utf-8") == RUNBOOK
        assert anchor == alert.name.lower()


def test_the_runbook_says_what_is_promised() -> None:
    assert (
        f"{AVAILABILITY * 100:g} % are\nanswered, and {LATENCY_SHARE * 100:g} % within {LATENCY_SECONDS:g} s" in RUNBOOK
    )


@pytest.mark.parametrize("name", ALERTS)
def test_a_section_says_what_it_means_and_the_first_three_commands(name: str) -> None:
    meaning = sections()[name].partition("```")[0]
    assert len(meaning.split()) > 8
    lines = commands(sections()[name])
    assert len(lines) == 3
    for line in lines:
        assert shlex.split(line)[0] in PROGRAMS
        for series in series_in(line) - {"xmc_"}:
            assert {name for name in series_of_the_service() if name.startswith(series)}, line
    for link in re.findall(r"\]\(#(\w+)\)", sections()[name]):
        assert link in {other.lower() for other in ALERTS}


def test_commands_of_the_service_in_the_runbook_are_its_commands(capsys: pytest.CaptureFixture[str]) -> None:
    lines = [line for section in sections().values() for line in commands(section)]
    spoken = {line.partition("xmc-serve ")[2] for line in lines if "xmc-serve " in line}
    assert spoken
    for words in spoken:
        with pytest.raises(SystemExit) as ended:
            main([words.split()[0], "--help"])
        assert ended.value.code == 0
        helped = capsys.readouterr().out
        assert all(word in helped for word in words.split()[1:] if word.startswith("--"))
