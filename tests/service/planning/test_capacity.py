"""The whole plan: what must be true of any, and what 500 million labels come to."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.planning.capacity import MOST_ENCODER_BYTES, Capacity, Pod, capacity_of
from service.planning.constants import load
from service.planning.sizes import file_bytes
from service.planning.work import SEARCHED_ENTRIES
from service.planning.workload import Wishes

CONSTANTS = load()
GIB = 1 << 30
POD = Pod("cpu", 2.0, 8 * GIB, 0.6)
HUGE = Pod("cpu", 64.0, 4096 * GIB, 0.6)

counts = st.integers(1, 600_000_000)
rates = st.floats(0.1, 1e6)

# Nothing in these is derived from the number of labels.
SIZES: dict[str, dict[str, Any]] = {
    "mach": {"method": "mach", "dimension": 64, "repetitions": 16, "buckets": 8192},
    "declare": {"method": "declare", "dimension": 100, "rows": 10**9},
    "flat": {"method": "unidec", "dimension": 128, "index": "flat"},
    "leading": {"method": "ova", "dimension": 129, "index": "flat", "leading": 64},
    "ivf": {"method": "unidec", "dimension": 128, "index": "ivf"},
    "hnsw": {"method": "unidec", "dimension": 128, "index": "hnsw"},
    "re-ranked": {"method": "unidec", "dimension": 128, "index": "flat", "rerank_weights": 10.0},
}
methods = st.sampled_from(list(SIZES.values()))


def planned(labels: int, qps: float = 100.0, pod: Pod = POD, **sizes: Any) -> Capacity:
    return capacity_of(Wishes(labels=labels, **sizes), qps, pod, CONSTANTS)


@given(sizes=methods, labels=counts, more=counts)
def test_more_labels_take_no_less(sizes: dict[str, Any], labels: int, more: int) -> None:
    one, other = planned(labels, **sizes), planned(labels + more, **sizes)
    assert sum(one.files.values()) <= sum(other.files.values())
    assert one.footprint.total <= other.footprint.total
    # Of fewer labels of MACH all are scored, which may take longer than a search among a few more; rows of DECLARE are
    # searched by their own vectors, which may be quicker than by labels' factors, where more labels than rows are.
    is_searched = one.workload.method != "mach" or labels * one.workload.repetitions >= SEARCHED_ENTRIES
    if is_searched and one.workload.by_factors == other.workload.by_factors:
        assert one.speed.whole <= other.speed.whole * (1 + 1e-9)
        assert one.pods <= other.pods


@given(sizes=methods, labels=counts, qps=rates, more=rates)
def test_more_queries_take_no_fewer_pods(sizes: dict[str, Any], labels: int, qps: float, more: float) -> None:
    assert planned(labels, qps, **sizes).pods <= planned(labels, qps + more, **sizes).pods


@given(sizes=methods, labels=counts, qps=rates, device=st.sampled_from(["cpu", "cuda"]))
def test_pods_answer_all_queries_and_one_may_be_away(
    sizes: dict[str, Any], labels: int, qps: float, device: Any
) -> None:
    plan = planned(labels, qps, replace(POD, device=device), **sizes)
    assert plan.pods >= 2
    assert plan.pods * plan.pod_queries_per_second >= qps * (1 - 1e-9)
    if plan.pods > 2:
        assert (plan.pods - 1) * plan.pod_queries_per_second < qps


@given(sizes=methods, labels=counts)
def test_sums_add_up(sizes: dict[str, Any], labels: int) -> None:
    plan = planned(labels, **sizes)
    assert sum(plan.files.values()) == sum(file_bytes(plan.workload, CONSTANTS.files).values())
    parts = plan.footprint
    model = parts.model_private + parts.model_mapped + parts.model_code
    assert parts.total == model + parts.http_private + parts.http_code
    assert plan.speed.whole == pytest.approx(plan.speed.encode + plan.speed.search + plan.speed.hop)


@pytest.mark.parametrize("method", ["mach", "declare", "unidec", "ova"])
def test_500_million_labels_say_what_does_not_fit(method: Any) -> None:
    plan = planned(500_000_000, method=method)
    assert plan.bound_by.startswith("memory")
    assert "bytes of memory (--memory)" in plan.faults["memory"]
    assert plan.beyond
    assert plan.shards is not None
    part = math.ceil(500_000_000 / plan.shards)
    assert not planned(part, method=method).faults
    assert planned(math.ceil(500_000_000 / (plan.shards - 1)), method=method).faults


def test_one_large_machine_holds_500_million_labels_of_mach() -> None:
    plan = planned(500_000_000, pod=HUGE, method="mach", dimension=64, repetitions=16)
    assert plan.faults == {}
    assert plan.shards == 1
    plan = planned(500_000_000, pod=HUGE, method="mach", dimension=4096, repetitions=16)
    assert plan.bound_by == "encoder.onnx"
    (fault,) = plan.faults.values()
    assert f"at most {MOST_ENCODER_BYTES:,} bytes of encoder.onnx" in fault


def test_where_memory_cannot_hold_any_part_no_number_of_shards_will_do() -> None:
    plan = planned(1000, pod=replace(POD, memory_bytes=1), method="mach")
    assert plan.shards is None


def test_a_gpu_that_is_too_small_is_told() -> None:
    sizes: dict[str, Any] = {"method": "unidec", "index": "flat", "dimension": 256}
    plan = planned(100_000_000, pod=replace(HUGE, device="cuda"), **sizes)
    assert "bytes on the GPU" in plan.faults["memory of the GPU"]
    assert planned(100_000_000, pod=HUGE, **sizes).faults == {}


@pytest.mark.parametrize(
    ("labels", "qps", "processors", "bound_by"),
    [
        (1000, 1.0, 2.0, "availability: 2 pods at least"),
        (1_000_000, 1e5, 2.0, "processors"),
        (1000, 1e6, 1000.0, "the process that speaks HTTP"),
    ],
)
def test_what_binds_is_named(labels: int, qps: float, processors: float, bound_by: str) -> None:
    plan = planned(labels, qps, replace(POD, processors=processors), method="unidec")
    assert plan.bound_by == bound_by


def test_a_gpu_may_bind() -> None:
    plan = planned(10**7, 1e5, replace(HUGE, device="cuda"), method="mach", dimension=64)
    assert plan.bound_by == "the GPU"


def test_on_a_gpu_what_processors_still_do_takes_their_time() -> None:
    """Rows of DECLARE are searched by them, labels of a flat index are not."""
    gpu = replace(HUGE, device="cuda")
    flat, rows = planned(10**5, pod=gpu, method="unidec", index="flat"), planned(10**5, pod=gpu, method="declare")
    assert flat.speed.search == 0
    assert rows.speed.search == planned(10**5, method="declare").speed.search
    assert any(sentence.startswith("declare: ") for sentence in planned(10**8, pod=gpu, method="declare").beyond)
    assert planned(10**5, pod=gpu, method="unidec", index="flat", rerank_weights=9).speed.search > 0
    many = planned(10**8, pod=gpu, method="unidec", index="flat")
    assert many.speed.encode > flat.speed.encode
    assert "GPU: 2.56e+10 numbers of labels, measured at 6.66e+08" in many.beyond


def test_what_was_measured_is_not_called_beyond() -> None:
    assert planned(20_000, method="unidec", vocabulary=30_000).beyond == ()


def test_what_is_not_is_named_with_what_was() -> None:
    (sentence,) = planned(20_000, method="unidec", encoder_bytes=10**6).beyond
    assert sentence.startswith("encoder: ")
    assert any(
        sentence.startswith("mach: ") and "measured up to" in sentence
        for sentence in planned(10**8, method="mach", dimension=64).beyond
    )
