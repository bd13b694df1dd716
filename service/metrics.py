"""Every Prometheus series of the service: name, unit, labels and buckets, in one class with a registry of its own.

Children are looked up once and kept, so that the hot path pays for an addition and not for a search by label.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar, get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from service.errors import (
    BodyTooLarge,
    Draining,
    Forbidden,
    HeadTooLarge,
    KeyRequired,
    NotReady,
    QueueFull,
    RateExceeded,
    RequestTooSlow,
)
from service.live.changes import LabelChanges
from service.nvml import GpuMemory

# 100 µs to 13 s, doubling: from one idle query to a request that should have timed out.
SECONDS = tuple(1e-4 * 2**power for power in range(18))
ROWS = tuple(float(2**power) for power in range(11))
RATIO = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
# Scores are cosines, votes, probabilities or sums of logits: fine around 0 to 1, coarse beyond.
SCORE = (-100, -50, -20, -10, -5, -2, -1, -0.5, 0, *(step / 10 for step in range(1, 11)), 2, 5, 10, 20, 50, 100)

MODEL = ("model", "version")
# Refusals before any work was done, as `xmc_rejected` names them.
REJECTIONS: dict[type, str] = {
    QueueFull: "queue_full",
    NotReady: "not_ready",
    Draining: "draining",
    HeadTooLarge: "head_too_large",
    BodyTooLarge: "body_too_large",
    RequestTooSlow: "slow",
    KeyRequired: "key",
    Forbidden: "forbidden",
    RateExceeded: "rate",
}
# A shadow answers sooner or later than the version that it follows.
DELAY = (*(-bound for bound in reversed(SECONDS[:15])), 0.0, *SECONDS[:15])

Series = TypeVar("Series", Counter, Gauge, Histogram)
SwapResult = Literal["done", "failed"]
ShadowResult = Literal["compared", "failed", "dropped"]


@dataclass(frozen=True)
class ModelMetrics:
    """The series of one model, ready to be observed."""

    queue_seconds: Histogram
    tokenize_seconds: Histogram
    encode_seconds: Histogram
    search_seconds: Histogram
    batch_rows: Histogram
    batch_padding_ratio: Histogram
    queue_rows: Gauge
    expired: Counter
    cancelled: Counter
    ready: Gauge
    load_seconds: Gauge
    top_score: Histogram
    truncated_inputs: Counter
    resident_bytes: Gauge
    filtered_within: Counter
    filtered_overfetch: Counter
    filtered_direct: Counter

    def observe(self, series: str, value: float) -> None:
        """Add a value to a histogram or a counter, by its name here."""
        own = getattr(self, series)
        if isinstance(own, Counter):
            own.inc(value)
        else:
            own.observe(value)


@dataclass(frozen=True)
class ShadowMetrics:
    """The series of one version that follows the others of its model."""

    requests: Mapping[ShadowResult, Counter]
    agreement: Histogram
    delay_seconds: Histogram

    def count(self, result: ShadowResult) -> None:
        """Count one request by what came of it."""
        self.requests[result].inc()


class _Gpus(Collector):
    """Asked when somebody scrapes.

    Attributes:
        read: memory by GPU; None where there is none.
    """

    def __init__(self) -> None:
        self.read: Callable[[], Mapping[str, GpuMemory]] | None = None

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """See `Collector.collect`."""
        if self.read is not None:
            used = GaugeMetricFamily(
                "xmc_gpu_memory_bytes", "Memory of a GPU that is in use, by whomever.", labels=["gpu"]
            )
            limit = GaugeMetricFamily("xmc_gpu_memory_limit_bytes", "Memory that a GPU has.", labels=["gpu"])
            for gpu, memory in self.read().items():
                used.add_metric([gpu], memory.used_bytes)
                limit.add_metric([gpu], memory.total_bytes)
            yield from (used, limit)


class _LostLines(Collector):
    """Asked when somebody scrapes.

    Attributes:
        read: lines of the log that are lost, so far.
    """

    def __init__(self) -> None:
        self.read: Callable[[], int] = lambda: 0

    def collect(self) -> Iterator[CounterMetricFamily]:
        """See `Collector.collect`."""
        yield CounterMetricFamily(
            "xmc_log_lines_dropped",
            "Lines that the process that speaks HTTP logged and nobody read in time; "
            "others tell theirs in the log alone.",
            self.read(),
        )


class Metrics:
    """All series; make one for each application.

    Attributes:
        inflight_requests: requests that have arrived and are not answered; the caller counts.
    """

    def __init__(self) -> None:
        # Otherwise each counter and histogram has a second series that nobody reads.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.inflight_requests = 0
        self._requests_by_label: dict[tuple[str, str, int], Counter] = {}
        self._seconds_by_endpoint: dict[str, Histogram] = {}
        self._rejected_by_reason: dict[str, Counter] = {}
        self._of_versions: list[Counter | Gauge | Histogram] = []

        self._requests = self._counter(
            "xmc_requests", "Answered requests; 499 stands for a client that left.", ("endpoint", "model", "code")
        )
        self._request_seconds = self._histogram(
            "xmc_request_seconds", "From the request's head to the end of its answer.", SECONDS, ("endpoint",)
        )
        self._inflight = self._gauge("xmc_inflight_requests", "Requests that have arrived and are not answered.", ())
        self._inflight.set_function(lambda: self.inflight_requests)
        self._rejected = self._counter("xmc_rejected", "Requests refused before any work was done.", ("reason",))
        self._event_loop_lag = self._histogram(
            "xmc_event_loop_lag_seconds", "How late the event loop runs a timer.", SECONDS, ()
        )
        self._ready = self._gauge("xmc_ready", "1 when /readyz answers 200, else 0.", ())
        self._memory_limit = self._gauge(
            "xmc_memory_limit_bytes",
            "Memory that the processes of the service may have together: the least limit of their control groups, "
            "or the machine's memory.",
            (),
        )
        self._model_info = self._gauge(
            "xmc_model_info",
            "1 for each loaded model: what was asked of --device, the device that it runs on, and the execution "
            "provider that ONNX Runtime tries first.",
            (*MODEL, "method", "asked", "device", "provider"),
        )

        self._queue_seconds = self._histogram(
            "xmc_queue_seconds", "Waiting time of a request's slowest query.", SECONDS
        )
        self._tokenize_seconds = self._histogram("xmc_tokenize_seconds", "Preparing the queries of a batch.", SECONDS)
        self._encode_seconds = self._histogram("xmc_encode_seconds", "Encoding a batch.", SECONDS)
        self._search_seconds = self._histogram("xmc_search_seconds", "From a batch's encodings to its labels.", SECONDS)
        self._batch_rows = self._histogram("xmc_batch_rows", "Queries in a batch.", ROWS)
        self._batch_padding_ratio = self._histogram(
            "xmc_batch_padding_ratio", "Share of a batch's input that is padding.", RATIO
        )
        self._queue_rows = self._gauge("xmc_queue_rows", "Queries that wait.")
        self._expired = self._counter("xmc_expired", "Queries dropped because their deadline had passed.")
        self._cancelled = self._counter("xmc_cancelled", "Queries dropped because their client had left.")
        self._model_ready = self._gauge("xmc_model_ready", "1 when the model answers, else 0.")
        self._model_load_seconds = self._gauge(
            "xmc_model_load_seconds", "Opening, verifying and warming up the model, golden queries included."
        )
        self._top_score = self._histogram("xmc_top_score", "Best score of a query; watch it for drift.", SCORE)
        self._truncated_inputs = self._counter("xmc_truncated_inputs", "Texts longer than the model reads.")
        self._resident_bytes = self._gauge(
            "xmc_model_resident_bytes", "Resident memory of the model's process, mapped files included."
        )
        self._swaps = self._counter(
            "xmc_model_swaps", "Models that were loaded while the service ran, or could not be.", ("result",)
        )
        self._shadow_requests = self._counter(
            "xmc_shadow_requests",
            "Requests of a model by what came of asking its shadow as well.",
            (*MODEL, "result"),
        )
        self._shadow_agreement = self._histogram(
            "xmc_shadow_agreement", "Share of a query's labels that a shadow and the served version agree on.", RATIO
        )
        self._shadow_delay_seconds = self._histogram(
            "xmc_shadow_delay_seconds", "How much later than the served answer the shadow's came.", DELAY
        )

        self._filtered = self._counter(
            "xmc_filtered_queries",
            "Queries with a filter, or whose labels would have been disabled ones: answered from what their batch "
            "found (within), from more of the best labels (overfetch), or by scoring all that are allowed (direct).",
            (*MODEL, "mode"),
        )
        self._labels_disabled = self._gauge(
            "xmc_labels_disabled", "Labels that were disabled while they are served.", ("model",)
        )
        self._labels_added = self._gauge(
            "xmc_labels_added", "Labels that were added while the model is served.", ("model",)
        )
        self._unlogged = self._counter(
            "xmc_prediction_log_dropped", "Predictions that the prediction log had no room for, or could not write.", ()
        )
        self._lost_lines = _LostLines()
        self.registry.register(self._lost_lines)
        self._gpus = _Gpus()
        self.registry.register(self._gpus)
        # A counter that begins with its first event has not grown when that is scraped, and nobody would be alarmed.
        for result in get_args(SwapResult):
            self._swaps.labels(result)
        for reason in REJECTIONS.values():
            self._rejected.labels(reason)

    def set_labels(self, model: str, changes: LabelChanges) -> None:
        """Say what was changed of a model's labels."""
        self._labels_disabled.labels(model).set(len(changes.disabled))
        self._labels_added.labels(model).set(len(changes.added))

    def count_unlogged(self, rows: int) -> None:
        """Count predictions that will not be in the prediction log."""
        self._unlogged.inc(rows)

    def watch_log(self, read: Callable[[], int]) -> None:
        """Tell from now on how many lines the log has lost.

        Args:
            read: counts them, each time that somebody scrapes.
        """
        self._lost_lines.read = read

    def watch_gpus(self, read: Callable[[], Mapping[str, GpuMemory]]) -> None:
        """Tell of GPUs from now on.

        Args:
            read: gives the memory by GPU, each time that somebody scrapes.
        """
        self._gpus.read = read

    def watch_readiness(self, is_ready: Callable[[], bool]) -> None:
        """Tell from now on whether traffic should be sent.

        Args:
            is_ready: asked each time that somebody scrapes.
        """
        self._ready.set_function(lambda: float(is_ready()))

    def set_memory_limit(self, limit_bytes: int) -> None:
        """Say how much memory the processes of the service may have together."""
        self._memory_limit.set(limit_bytes)

    def observe_request(self, endpoint: str, model: str, code: int, seconds: float) -> None:
        """Count one answered request.

        Args:
            endpoint: the route's template, never the path that the client wrote.
            model: name of the model that answered; empty when none did.
            code: status of the answer.
            seconds: its duration.
        """
        labels = (endpoint, model, code)
        counter = self._requests_by_label.get(labels)
        if counter is None:
            counter = self._requests_by_label[labels] = self._requests.labels(endpoint, model, code)
            self._seconds_by_endpoint[endpoint] = self._request_seconds.labels(endpoint)
        counter.inc()
        self._seconds_by_endpoint[endpoint].observe(seconds)

    def reject(self, reason: str) -> None:
        """Count one request that was refused before any work was done."""
        counter = self._rejected_by_reason.get(reason)
        if counter is None:
            counter = self._rejected_by_reason[reason] = self._rejected.labels(reason)
        counter.inc()

    def observe_event_loop_lag(self, seconds: float) -> None:
        """Note how late the event loop ran a timer."""
        self._event_loop_lag.observe(seconds)

    def model(self, name: str, version: str, method: str, *, asked: str, device: str, provider: str) -> ModelMetrics:
        """The series of one model.

        Args:
            name: of the model.
            version: of its bundle.
            method: "mach", "declare" or "unidec".
            asked: "auto", "cpu" or "cuda", as the settings say.
            device: "cpu" or "cuda", as resolved.
            provider: ONNX Runtime's execution provider of first choice.
        """
        self._model_info.labels(name, version, method, asked, device, provider).set(1)
        return ModelMetrics(
            queue_seconds=self._queue_seconds.labels(name, version),
            tokenize_seconds=self._tokenize_seconds.labels(name, version),
            encode_seconds=self._encode_seconds.labels(name, version),
            search_seconds=self._search_seconds.labels(name, version),
            batch_rows=self._batch_rows.labels(name, version),
            batch_padding_ratio=self._batch_padding_ratio.labels(name, version),
            queue_rows=self._queue_rows.labels(name, version),
            expired=self._expired.labels(name, version),
            cancelled=self._cancelled.labels(name, version),
            ready=self._model_ready.labels(name, version),
            load_seconds=self._model_load_seconds.labels(name, version),
            top_score=self._top_score.labels(name, version),
            truncated_inputs=self._truncated_inputs.labels(name, version),
            resident_bytes=self._resident_bytes.labels(name, version),
            filtered_within=self._filtered.labels(name, version, "within"),
            filtered_overfetch=self._filtered.labels(name, version, "overfetch"),
            filtered_direct=self._filtered.labels(name, version, "direct"),
        )

    def shadow(self, name: str, version: str) -> ShadowMetrics:
        """The series of a version that follows the others of its model."""
        return ShadowMetrics(
            requests={result: self._shadow_requests.labels(name, version, result) for result in get_args(ShadowResult)},
            agreement=self._shadow_agreement.labels(name, version),
            delay_seconds=self._shadow_delay_seconds.labels(name, version),
        )

    def count_swap(self, result: SwapResult) -> None:
        """Count one attempt to load a model while the service runs."""
        self._swaps.labels(result).inc()

    def forget(self, name: str, version: str) -> None:
        """Drop all series of a version that has gone: they would stay for ever, and swaps never end."""
        labels = {"model": name, "version": version}
        for series in self._of_versions:
            series.remove_by_labels(labels)

    def expose(self) -> bytes:
        """All series in Prometheus' text format."""
        return generate_latest(self.registry)

    def _counter(self, name: str, summary: str, labels: tuple[str, ...] = MODEL) -> Counter:
        return self._kept(Counter(name, summary, labels, registry=self.registry), labels)

    def _gauge(self, name: str, summary: str, labels: tuple[str, ...] = MODEL) -> Gauge:
        return self._kept(Gauge(name, summary, labels, registry=self.registry), labels)

    def _histogram(
        self, name: str, summary: str, buckets: tuple[float, ...], labels: tuple[str, ...] = MODEL
    ) -> Histogram:
        return self._kept(Histogram(name, summary, labels, buckets=buckets, registry=self.registry), labels)

    def _kept(self, series: Series, labels: tuple[str, ...]) -> Series:
        """The series itself, remembered if it has children that go when a version goes."""
        if set(MODEL) <= set(labels):
            self._of_versions.append(series)
        return series
