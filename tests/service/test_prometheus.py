"""What `/metrics` says, as Prometheus itself reads it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.nvml import GpuMemory
from tests.bundles import Spec, write_bundle
from tests.service.monitoring.prometheus import prometheus
from tests.service.serving import ask, in_this_process

pytestmark = pytest.mark.prometheus

# Names are promises; beside these the README has those that came later.
PROMISED = {
    *("xmc_requests_total", "xmc_request_seconds", "xmc_queue_seconds", "xmc_tokenize_seconds", "xmc_encode_seconds"),
    *("xmc_search_seconds", "xmc_batch_rows", "xmc_batch_padding_ratio", "xmc_queue_rows", "xmc_inflight_requests"),
    *("xmc_rejected_total", "xmc_expired_total", "xmc_cancelled_total", "xmc_model_info", "xmc_model_ready"),
    *("xmc_model_load_seconds", "xmc_model_swaps_total", "xmc_top_score", "xmc_truncated_inputs_total"),
    *("xmc_event_loop_lag_seconds", "xmc_gpu_memory_bytes"),
}
GPU = "GPU-5f1c"


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A service all of whose series have values."""
    path = tmp_path_factory.mktemp("bundles") / "mach"
    write_bundle(path, Spec(name="mach"))
    with in_this_process(path) as (service, port):
        assert ask(port)[0] == 200
        service.metrics.reject("queue_full")
        service.metrics.count_swap("done")
        service.metrics.shadow("mach", "1").count("compared")
        service.metrics.watch_gpus(lambda: {GPU: GpuMemory(7 << 30, 80 << 30)})
        yield port


def test_promtool_finds_nothing_wrong_and_everything_there(port: int) -> None:
    exposed = ask(port, "/metrics")[1]
    checked = subprocess.run(["promtool", "check", "metrics"], input=exposed, capture_output=True, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")
    lines = [line for line in exposed.decode().splitlines() if not line.startswith("#")]
    with_values = {line.split("{")[0].split(" ")[0].removesuffix("_count") for line in lines}
    assert with_values >= PROMISED


def test_prometheus_scrapes_the_service_and_answers(port: int, tmp_path: Path) -> None:
    with prometheus(port, tmp_path) as scraper:
        assert scraper.value('up{job="xmcserve"}') == 1
        assert scraper.value('sum(xmc_requests_total{endpoint="/predict",model="mach",code="200"})') >= 1
        assert scraper.value("histogram_quantile(0.5, sum by (le) (xmc_request_seconds_bucket))") > 0
        assert scraper.value(f'xmc_gpu_memory_bytes{{gpu="{GPU}"}}') == 7 << 30
