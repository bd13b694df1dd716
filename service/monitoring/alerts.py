"""The alerts. Each has a section in the runbook, `README.md`, and a test of when it fires and when it is silent."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from service.monitoring.objectives import (
    AVAILABILITY,
    DRIFT,
    EVENT_LOOP_LAG_SECONDS,
    FAST_BURNS,
    GPU_MEMORY_SHARE,
    LATENCY_SECONDS,
    LATENCY_SHARE,
    MEMORY_SHARE,
    REFUSED_SHARE,
    SLOW_BURNS,
    Burn,
)
from service.monitoring.recordings import DRIFTED, LAG_P99, MEMORY, REFUSED, REQUEST_P99, errors, slow
from service.monitoring.rules import INSTANCE, OWNER, VERSION, Alert, series

CUDA = "CUDAExecutionProvider"


def alerts() -> tuple[Alert, ...]:
    """All of them, by what they watch."""
    return (*_presence(), *_promises(), *_models(), *_means())


def _presence() -> tuple[Alert, ...]:
    up = series("up")
    return (
        Alert(
            "XmcDown",
            f"sum by ({OWNER}) ({up}) == 0 or absent({up})",
            "1m",
            "critical",
            "No instance of the service answers Prometheus",
            "Nobody gets labels: every instance is gone or cannot be scraped, or Prometheus knows of none.",
        ),
        Alert(
            "XmcInstanceDown",
            f"{up} == 0",
            "5m",
            "warning",
            "{{ $labels.instance }} does not answer Prometheus",
            "The process is gone, hangs or cannot be reached; the others carry its load.",
        ),
        Alert(
            "XmcNotReady",
            f"{series('xmc_ready')} == 0",
            "10m",
            "critical",
            "{{ $labels.instance }} is alive and not ready",
            "/readyz has answered 503 for ten minutes: longer than models take to load or a shutdown takes.",
        ),
        Alert(
            "XmcModelStopped",
            f"{series('xmc_model_ready')} == 0",
            "1m",
            "critical",
            "{{ $labels.model }}:{{ $labels.version }} stopped on {{ $labels.instance }}",
            "The model's process has died. It stays so until the bundle is loaded again or the service is restarted.",
        ),
    )


def _promises() -> tuple[Alert, ...]:
    return (
        Alert(
            "XmcErrorBudgetBurnsFast",
            _burns(FAST_BURNS, errors, 1 - AVAILABILITY),
            "2m",
            "critical",
            "{{ $value | humanizePercentage }} of the requests for labels fail",
            f"At this rate the errors that {AVAILABILITY:.1%} availability allows for 30 days are used up in days.",
        ),
        Alert(
            "XmcErrorBudgetBurnsSlowly",
            _burns(SLOW_BURNS, errors, 1 - AVAILABILITY),
            "15m",
            "warning",
            "{{ $value | humanizePercentage }} of the requests for labels fail",
            f"At this rate {AVAILABILITY:.1%} availability will not be kept over 30 days.",
        ),
        Alert(
            "XmcLatencyBudgetBurnsFast",
            _burns(FAST_BURNS, slow, 1 - LATENCY_SHARE),
            "2m",
            "critical",
            f"{{{{ $value | humanizePercentage }}}} of the answers take longer than {LATENCY_SECONDS:g} s",
            f"{LATENCY_SHARE:.0%} shall be quicker; at this rate what is allowed for 30 days is used up in days.",
        ),
        Alert(
            "XmcLatencyBudgetBurnsSlowly",
            _burns(SLOW_BURNS, slow, 1 - LATENCY_SHARE),
            "15m",
            "warning",
            f"{{{{ $value | humanizePercentage }}}} of the answers take longer than {LATENCY_SECONDS:g} s",
            f"{LATENCY_SHARE:.0%} shall be quicker; at this rate they will not be, over 30 days.",
        ),
        Alert(
            "XmcLatencyHigh",
            f"{REQUEST_P99} > {LATENCY_SECONDS:g}",
            "10m",
            "warning",
            "p99 of requests for labels is {{ $value | humanizeDuration }}",
            f"The objective is {LATENCY_SECONDS:g} s.",
        ),
        Alert(
            "XmcRequestsRefused",
            f"{REFUSED} > {REFUSED_SHARE:g}",
            "5m",
            "warning",
            "{{ $value | humanizePercentage }} of the requests for labels are refused",
            "Queues are full (429), or instances get traffic that are not ready or leave (503).",
        ),
    )


def _models() -> tuple[Alert, ...]:
    elsewhere = series("xmc_model_info", 'asked="cuda"', f'provider!="{CUDA}"')
    undecided = series("xmc_model_info", 'asked="auto"', f'provider!="{CUDA}"')
    failed = series("xmc_model_swaps_total", 'result="failed"')
    return (
        Alert(
            "XmcSwapFailed",
            f"increase({failed}[15m]) > 0",
            "0m",
            "warning",
            "A bundle could not be loaded on {{ $labels.instance }}",
            "What was served before is served on.",
        ),
        Alert(
            "XmcProviderNotCuda",
            f"{elsewhere} or ({undecided} and on ({INSTANCE}) {series('xmc_gpu_memory_bytes')})",
            "1m",
            "warning",
            "{{ $labels.model }}:{{ $labels.version }} runs on {{ $labels.provider }} beside a GPU",
            "CUDA was asked for, or left to the service where there is a GPU, and the model runs without it.",
        ),
        Alert(
            "XmcScoreDrift",
            f"min by ({VERSION}) ({DRIFTED}) > {DRIFT:g}",
            "30m",
            "warning",
            "Best scores of {{ $labels.model }}:{{ $labels.version }} are others than they were",
            "For {{ $value | humanizePercentage }} more or fewer of the queries than at the same hour a day and a week "
            "ago the best score is below some value: what is asked has changed, or how it is prepared.",
        ),
    )


def _means() -> tuple[Alert, ...]:
    gpu_used, gpu_limit = series("xmc_gpu_memory_bytes"), series("xmc_gpu_memory_limit_bytes")
    return (
        Alert(
            "XmcMemoryHigh",
            f"{MEMORY} > {MEMORY_SHARE:g}",
            "10m",
            "warning",
            "{{ $labels.instance }} uses {{ $value | humanizePercentage }} of its memory",
            "It will be killed when more is needed; or files of bundles do not fit and are read again and again.",
        ),
        Alert(
            "XmcGpuMemoryHigh",
            f"{gpu_used} / {gpu_limit} > {GPU_MEMORY_SHARE:g}",
            "10m",
            "warning",
            "{{ $value | humanizePercentage }} of the memory of {{ $labels.gpu }} is in use",
            "The next bundle, or a larger batch, may find no room on {{ $labels.instance }}.",
        ),
        Alert(
            "XmcEventLoopLag",
            f"{LAG_P99} > {EVENT_LOOP_LAG_SECONDS:g}",
            "10m",
            "warning",
            "The event loop of {{ $labels.instance }} is {{ $value | humanizeDuration }} late",
            "Every request waits as long: the process that speaks HTTP lacks processor time.",
        ),
        Alert(
            "XmcLogLinesDropped",
            f"increase({series('xmc_log_lines_dropped_total')}[15m]) > 0",
            "0m",
            "warning",
            "{{ $labels.instance }} loses lines of its log",
            "Nobody reads its standard error fast enough; requests do not wait for that.",
        ),
        Alert(
            "XmcPredictionLogDropped",
            f"increase({series('xmc_prediction_log_dropped_total')}[15m]) > 0",
            "0m",
            "warning",
            "{{ $labels.instance }} loses predictions of its prediction log",
            "They could not be written, or not fast enough; requests do not wait for that.",
        ),
    )


def _burns(burns: Sequence[Burn], share: Callable[[str], str], budget: float) -> str:
    """Whether a budget is used up too fast over both windows of one of several pairs; the value is the longer one's."""
    pairs = []
    for factor, long, short in burns:
        most = f"{factor * budget:.6g}"
        pairs.append(f"({share(long)} > {most} and {share(short)} > {most})")
    return " or ".join(pairs)
