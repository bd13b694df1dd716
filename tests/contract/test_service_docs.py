"""The tables of ``service/README.md`` say what the code says."""

from __future__ import annotations

import re
from pathlib import Path

from service.doctor.examination import CHECKS
from service.errors import RequestError
from service.http.admin import PROBLEMS as ADMIN_PROBLEMS
from service.http.routes import PROBLEMS
from service.live.changes import LabelChanges
from service.metrics import REJECTIONS, Metrics
from service.nvml import GpuMemory
from service.settings import default_text, flag, options, variable

ROOT = Path(__file__).parents[2]
README = (ROOT / "service" / "README.md").read_text(encoding="utf-8")


def table(heading: str) -> list[list[str]]:
    """The cells of the table under a heading, without its head and without code marks."""
    section = README.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip().replace("`", "") for cell in line.strip("|").split(" | ")] for line in lines[1:]]


def test_settings() -> None:
    expected = [[variable(name), flag(name), default_text(name), option.summary] for name, option in options().items()]
    assert table("Settings") == expected


def test_errors() -> None:
    documented = [(int(status), title) for status, title, _ in table("Errors")]
    assert sorted(documented) == sorted((error.status, error.title) for error in RequestError.__subclasses__())
    assert {status for status, _ in documented} == set(PROBLEMS) | set(ADMIN_PROBLEMS)
    assert all(meaning for _, _, meaning in table("Errors"))


def test_every_error_is_in_the_drawing_of_its_module() -> None:
    source = (ROOT / "service" / "errors.py").read_text(encoding="utf-8")
    for error in RequestError.__subclasses__():
        assert re.search(rf"├── {error.__name__} +{error.status} |└── {error.__name__} +{error.status} ", source)
    assert set(REJECTIONS) <= set(RequestError.__subclasses__())


def test_metrics() -> None:
    expected = []
    metrics = Metrics()
    metrics.model("name", "version", "mach", asked="auto", device="cpu", provider="CPUExecutionProvider")
    metrics.observe_request("/predict", "name", 200, 0.0)
    metrics.reject("queue_full")
    metrics.count_swap("done")
    metrics.shadow("name", "version")
    metrics.watch_gpus(lambda: {"GPU-0": GpuMemory(1, 2)})
    metrics.set_labels("name", LabelChanges())
    for family in metrics.registry.collect():
        if family.name.startswith("process_"):
            continue
        name = family.name + "_total" * (family.type == "counter")
        labels = [label for label in family.samples[0].labels if label != "le"]
        expected.append([name, family.type, sorted(labels) or ["-"], family.documentation])
    documented = [[name, kind, sorted(labels.split(", ")), meaning] for name, kind, labels, meaning in table("Metrics")]
    assert documented == expected


def test_checks_of_doctor() -> None:
    assert table("Doctor") == [[check.name, check.looks_at, check.faults] for check in CHECKS]


def test_the_picture_names_files_that_exist() -> None:
    picture = README.split("```")[1]
    for name in re.findall(r"[\w/]+\.py|decoders/|search/", picture):
        assert (ROOT / "service" / name).exists(), name


def test_every_fault_has_its_test() -> None:
    rows = table("Faults")
    assert len(rows) > 10
    tests = {
        name for file in (ROOT / "tests").rglob("test_*.py") for name in re.findall(r"def (test_\w+)", file.read_text())
    }
    for fault, _, _, named in rows:
        assert named, fault
        assert set(named.split(", ")) <= tests, fault
