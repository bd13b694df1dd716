from __future__ import annotations

import itertools
import re

from service.metrics import REJECTIONS, SECONDS, Metrics
from service.nvml import GpuMemory

ON_CPU = {"asked": "auto", "device": "cpu", "provider": "CPUExecutionProvider"}


def exposed(metrics: Metrics) -> dict[str, float]:
    lines = [line for line in metrics.expose().decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def test_times_are_seconds_in_buckets_that_double_from_100_microseconds() -> None:
    assert SECONDS[0] == 1e-4
    assert all(high == 2 * low for low, high in itertools.pairwise(SECONDS))
    assert 10 < SECONDS[-1] < 20


def test_requests_are_counted_by_endpoint_model_and_code() -> None:
    metrics = Metrics()
    for code in (200, 200, 429):
        metrics.observe_request("/predict", "tiny", code, 0.003)
    metrics.reject("queue_full")
    found = exposed(metrics)
    assert found['xmc_requests_total{code="200",endpoint="/predict",model="tiny"}'] == 2
    assert found['xmc_requests_total{code="429",endpoint="/predict",model="tiny"}'] == 1
    assert found['xmc_request_seconds_count{endpoint="/predict"}'] == 3
    assert found['xmc_rejected_total{reason="queue_full"}'] == 1


def test_gauges_are_read_when_they_are_scraped() -> None:
    metrics = Metrics()
    queued = 3
    metrics.model("tiny", "1", "mach", **ON_CPU).queue_rows.set_function(lambda: queued)
    metrics.inflight_requests = 2
    assert exposed(metrics)['xmc_queue_rows{model="tiny",version="1"}'] == 3
    queued = 5
    assert exposed(metrics)['xmc_queue_rows{model="tiny",version="1"}'] == 5
    assert exposed(metrics)["xmc_inflight_requests"] == 2
    assert (
        exposed(metrics)[
            'xmc_model_info{asked="auto",device="cpu",method="mach",model="tiny",provider="CPUExecutionProvider",version="1"}'
        ]
        == 1
    )


def test_two_applications_share_no_series() -> None:
    first, second = Metrics(), Metrics()
    first.reject("queue_full")
    assert exposed(second)['xmc_rejected_total{reason="queue_full"}'] == 0


def test_what_alarms_begins_at_zero() -> None:
    """The growth of a counter that is not there before its first event is nothing."""
    found = exposed(Metrics())
    assert found['xmc_model_swaps_total{result="failed"}'] == 0
    assert {found[f'xmc_rejected_total{{reason="{reason}"}}'] for reason in REJECTIONS.values()} == {0}


def test_names_are_ours_in_base_units_and_without_duplicates() -> None:
    names = [family.name for family in Metrics().registry.collect() if not family.name.startswith("process_")]
    assert len(set(names)) == len(names)
    for name in names:
        assert re.fullmatch(r"xmc_[a-z_]+", name)
        assert not re.search(r"_(ms|millis|milliseconds|minutes|kb|mb|percent)(_|$)", name)


def test_gpus_are_read_when_they_are_scraped() -> None:
    metrics = Metrics()
    assert "xmc_gpu_memory_bytes" not in metrics.expose().decode()
    used = {"GPU-0": GpuMemory(3, 80)}
    metrics.watch_gpus(lambda: used)
    assert exposed(metrics)['xmc_gpu_memory_bytes{gpu="GPU-0"}'] == 3
    assert exposed(metrics)['xmc_gpu_memory_limit_bytes{gpu="GPU-0"}'] == 80
    used["GPU-0"] = GpuMemory(4, 80)
    assert exposed(metrics)['xmc_gpu_memory_bytes{gpu="GPU-0"}'] == 4


def test_lost_lines_of_the_log_are_counted_when_they_are_scraped() -> None:
    metrics = Metrics()
    assert exposed(metrics)["xmc_log_lines_dropped_total"] == 0
    metrics.watch_log(lambda: 7)
    assert exposed(metrics)["xmc_log_lines_dropped_total"] == 7


def test_readiness_is_asked_when_it_is_scraped() -> None:
    metrics = Metrics()
    assert exposed(metrics)["xmc_ready"] == 0
    is_ready = True
    metrics.watch_readiness(lambda: is_ready)
    assert exposed(metrics)["xmc_ready"] == 1
    is_ready = False
    assert exposed(metrics)["xmc_ready"] == 0
