"""The recording rules: what alerts and the dashboard ask of many series, answered ahead of time."""

from __future__ import annotations

from service.monitoring.objectives import DRIFT_QUERIES, LATENCY_SECONDS, WINDOWS
from service.monitoring.rules import INSTANCE, OWNER, VERSION, Recording, asking, rate, series

LAG_P99 = "instance:xmc_event_loop_lag_seconds:p99_rate5m"
MEMORY = "instance:xmc_memory:ratio"
REFUSED = "job:xmc_refused:ratio_rate5m"
REQUEST_P99 = "job:xmc_request_seconds:p99_rate5m"
SCORES = "version:xmc_top_score:share_rate1h"
SCORED = "version:xmc_top_score:queries_increase1h"
DRIFTED = "version:xmc_top_score:drift"

REFERENCES = (("day", "1d"), ("week", "1w"))


def errors(window: str) -> str:
    """Name of the series of the share of requests that failed."""
    return f"job:xmc_errors:ratio_rate{window}"


def slow(window: str) -> str:
    """Name of the series of the share of requests that took longer than the objective says."""
    return f"job:xmc_slow:ratio_rate{window}"


def recordings() -> tuple[Recording, ...]:
    """All of them; a rule may read those before it."""
    return (
        *(Recording(errors(window), _errors(window)) for window in WINDOWS),
        *(Recording(slow(window), _slow(window)) for window in WINDOWS),
        Recording(REQUEST_P99, _p99(asking("xmc_request_seconds_bucket"), OWNER)),
        Recording(REFUSED, _refused()),
        Recording(LAG_P99, _p99(series("xmc_event_loop_lag_seconds_bucket"), INSTANCE)),
        Recording(MEMORY, _memory()),
        Recording(SCORES, _scores()),
        Recording(SCORED, f"sum by ({VERSION}) (increase({series('xmc_top_score_count')}[1h]))"),
        *(Recording(DRIFTED, _drift(offset), (("reference", name),)) for name, offset in REFERENCES),
    )


def _answerable(window: str) -> str:
    """Requests a second that were not the client's mistake, where there are any."""
    answerable = asking("xmc_requests_total", 'code!~"4.."')
    return f"({rate(answerable, window)} > 0)"


def _errors(window: str) -> str:
    """Nothing failed where no failure was ever counted."""
    failed = rate(asking("xmc_requests_total", 'code=~"5.."'), window)
    return f"({failed} or 0 * {_answerable(window)}) / {_answerable(window)}"


def _slow(window: str) -> str:
    """Refusals are in both terms of the difference, for they are quick, and not among what they are divided by."""
    within = rate(asking("xmc_request_seconds_bucket", f'le="{LATENCY_SECONDS:g}"'), window)
    return f"({rate(asking('xmc_request_seconds_count'), window)} - {within}) / {_answerable(window)}"


def _p99(buckets: str, by: str) -> str:
    return f"histogram_quantile(0.99, {rate(buckets, '5m', f'{by}, le')})"


def _refused() -> str:
    """Of 429s only those for a full queue: a client that asks more often than its key allows concerns nobody else."""
    full = series("xmc_rejected_total", 'reason="queue_full"')
    closed = asking("xmc_requests_total", 'code="503"')
    refused = f"sum by ({OWNER}) (rate({full}[5m]) or rate({closed}[5m]))"
    return f"{refused} / ({rate(asking('xmc_requests_total'), '5m')} > 0)"


def _memory() -> str:
    resident = (
        f"sum by ({INSTANCE}) ({series('xmc_model_resident_bytes')} or {series('process_resident_memory_bytes')})"
    )
    return f"{resident} / sum by ({INSTANCE}) ({series('xmc_memory_limit_bytes')})"


def _scores() -> str:
    """The share of queries whose best score was at most `le`: a distribution, whatever the scale of the scores."""
    at_most = rate(series("xmc_top_score_bucket"), "1h", f"{VERSION}, le")
    return f"{at_most} / ignoring (le) group_left () ({rate(series('xmc_top_score_count'), '1h', VERSION)} > 0)"


def _drift(offset: str) -> str:
    """The largest difference to the distribution of the same hour some days ago, where both hours had many queries."""
    enough = f"{SCORED} >= {DRIFT_QUERIES} and on ({VERSION}) {SCORED} offset {offset} >= {DRIFT_QUERIES}"
    return f"max by ({VERSION}) (abs({SCORES} - {SCORES} offset {offset})) and on ({VERSION}) ({enough})"
