"""``xmc-serve plan`` as users type it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from service import cli
from service.planning.constants import load

PLAN = ["plan", "--method", "unidec", "--labels", "100000", "--qps", "100", "--index", "flat"]
DECLARE = ["plan", "--method", "declare", "--labels", "10000", "--qps", "100"]
MACH = ["plan", "--method", "mach", "--labels", "100000", "--qps", "100"]
TRANSFORMER = [*PLAN, "--encoder", "transformer"]


def printed(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    assert cli.main(arguments) == 0
    return capsys.readouterr().out


def test_a_plan_tells_all_that_is_asked_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, PLAN)
    assert text.startswith("unidec: 100,000 labels, bag encoder of 100 MB, 256 dimensions, flat index\n")
    for words in (
        "disk  ",
        "encoder 100 MB, labels ",
        "memory  ",
        "private ",
        "mapped ",
        "HTTP ",
        "p50 ",
        "encode ",
        "search ",
        "pods       2 for 100 queries a second",
        "bound by   availability",
        "one holds it",
        f"measured   {load().source.machine}, {load().source.date}, by python -m tests.benchmarks.capacity",
    ):
        assert words in text, words


def test_json_is_the_same_in_bytes_and_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    content: dict[str, Any] = json.loads(printed(capsys, [*PLAN, "--json"]))
    assert content["disk_bytes"] == sum(content["files"].values())
    parts = {name: size for name, size in content["footprint"].items() if name != "gpu"}
    assert content["memory_bytes"] == sum(parts.values())
    assert content["pods"] == 2
    assert content["workload"]["dimension"] == 256
    assert content["measured"] == load().source.model_dump()


@pytest.mark.parametrize(
    ("base", "option"),
    [
        (PLAN, ["--dim", "64"]),
        (PLAN, ["--index", "ivf"]),
        (PLAN, ["--leading", "64"]),
        (PLAN, ["--encoder", "transformer"]),
        (PLAN, ["--vocabulary", "1000"]),
        (PLAN, ["--encoder-bytes", "1000000"]),
        (PLAN, ["--label-bytes", "500"]),
        (PLAN, ["--rerank-weights", "100"]),
        (PLAN, ["--device", "cuda"]),
        (PLAN, ["--cpu", "8"]),
        (PLAN, ["--memory", "100Mi"]),
        (PLAN, ["--utilisation", "0.1"]),
        (PLAN, ["--json"]),
        (PLAN, ["--qps", "1e6"]),
        (PLAN, ["--labels", "99999"]),
        (PLAN, ["--method", "ova"]),
        (TRANSFORMER, ["--tokens", "64"]),
        (MACH, ["--repetitions", "4"]),
        (MACH, ["--buckets", "100"]),
        (DECLARE, ["--rows", "1234567"]),
        (DECLARE, ["--row-labels", "20"]),
    ],
)
def test_every_option_counts(capsys: pytest.CaptureFixture[str], base: list[str], option: list[str]) -> None:
    assert printed(capsys, [*base, *option]) != printed(capsys, base)


@pytest.mark.parametrize(("memory", "size"), [("1Gi", 2**30), ("1.5G", 1_500_000_000), ("512Mi", 2**29), ("7", 7)])
def test_memory_is_written_as_in_kubernetes(capsys: pytest.CaptureFixture[str], memory: str, size: int) -> None:
    assert json.loads(printed(capsys, [*PLAN, "--json", "--memory", memory]))["pod"]["memory_bytes"] == size


def test_500_million_labels_are_told_in_shards(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, ["plan", "--method", "mach", "--labels", "500,000,000", "--qps", "1000", "--dim", "64"])
    assert "machine    one does not hold it: expected at most" in text
    assert "machines with a part of the labels each would hold it" in text
    assert "beyond     mach: " in text


@pytest.mark.parametrize(
    "wrong",
    [
        ["--labels", "0"],
        ["--labels", "many"],
        ["--qps", "0"],
        ["--qps", "inf"],
        ["--method", "svm"],
        ["--memory", "much"],
        ["--memory", "0Gi"],
        ["--utilisation", "1.5"],
        ["--device", "tpu"],
    ],
)
def test_wrong_options_are_explained(capsys: pytest.CaptureFixture[str], wrong: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main([*PLAN, *wrong])
    assert f"argument {wrong[0]}: " in capsys.readouterr().err


def test_options_that_contradict_each_other_are_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*MACH, "--rows", "5"]) == 2
    assert capsys.readouterr().err == "xmc-serve: --rows belongs to declare: expected none with mach\n"
