"""The dashboard from top to bottom: first what users notice, then why."""

from __future__ import annotations

from service.monitoring.objectives import (
    AVAILABILITY,
    DRIFT,
    EVENT_LOOP_LAG_SECONDS,
    GPU_MEMORY_SHARE,
    LATENCY_SECONDS,
    MEMORY_SHARE,
    REFUSED_SHARE,
)
from service.monitoring.panels import (
    HALF,
    INSTANCE,
    MODEL,
    OF_REQUESTS,
    OWNER,
    THIRD,
    WHOLE,
    Panel,
    Query,
    Row,
    lines,
    mean,
    quantile,
    rate,
    stat,
)
from service.monitoring.recordings import DRIFTED, LAG_P99, MEMORY, REFUSED, REQUEST_P99, errors, slow

BUDGET = 1 - AVAILABILITY
STAGES = ("queue", "tokenize", "encode", "search")


def rows() -> tuple[Row, ...]:
    """All panels."""
    return (_promises(), _traffic(), _latency(), _batches(), _models(), _answers(), _means())


def _promises() -> Row:
    answering = f"xmc_model_ready{{{MODEL}}}"
    asked = "sum by (alertname, alertstate, severity)"
    return Row(
        "Promises",
        (
            stat("Instances ready", "They get traffic.", "short", f"sum(xmc_ready{{{INSTANCE}}})"),
            stat("Models that stopped", "0 is well.", "short", f"count({answering}) - sum({answering})", 1),
            stat(
                "Requests that fail", "5xx, of all but 4xx.", "percentunit", f"max({errors('5m')}{{{OWNER}}})", BUDGET
            ),
            stat("Latency, p99", "Of requests for labels.", "s", f"max({REQUEST_P99}{{{OWNER}}})", LATENCY_SECONDS),
            stat(
                f"Slower than {LATENCY_SECONDS:g} s", "Of all but 4xx.", "percentunit", f"max({slow('5m')}{{{OWNER}}})"
            ),
            stat("Refused", "For a full queue, or 503.", "percentunit", f"max({REFUSED}{{{OWNER}}})", REFUSED_SHARE),
            lines(
                "Burn rate of the error budget",
                "How many times as fast as would use up the errors of 30 days in 30 days, by window.",
                "short",
                *(
                    Query(f"max({errors(window)}{{{OWNER}}}) / {BUDGET:.6g}", window)
                    for window in ("5m", "1h", "6h", "3d")
                ),
                limit=1,
                width=HALF,
            ),
            Panel(
                "Alerts",
                "That fire, or soon will.",
                "table",
                "short",
                (Query(f'{asked} (ALERTS{{alertname=~"Xmc.*"}})', "{{alertname}} {{alertstate}}"),),
                width=HALF,
            ),
        ),
    )


def _traffic() -> Row:
    return Row(
        "Traffic",
        (
            lines(
                "Requests for labels by status",
                "499: the client had left.",
                "reqps",
                Query(rate("xmc_requests_total", OF_REQUESTS, "code"), "{{code}}"),
            ),
            lines(
                "All requests by endpoint",
                "Probes of health among them.",
                "reqps",
                Query(rate("xmc_requests_total", INSTANCE, "endpoint"), "{{endpoint}}"),
            ),
            lines(
                "Refused by reason",
                "Before any work was done; not_ready and draining count probes, too.",
                "reqps",
                Query(rate("xmc_rejected_total", INSTANCE, "reason"), "{{reason}}"),
            ),
            lines(
                "Requests in flight",
                "Arrived and not answered.",
                "short",
                Query(f"sum by (instance) (xmc_inflight_requests{{{INSTANCE}}})", "{{instance}}"),
            ),
        ),
    )


def _latency() -> Row:
    return Row(
        "Latency",
        (
            lines(
                "Requests for labels",
                "From the head of a request to the end of its answer; refusals are among them.",
                "s",
                *(
                    Query(quantile(share, "xmc_request_seconds", OF_REQUESTS), f"p{share * 100:g}")
                    for share in (0.5, 0.9, 0.99)
                ),
                limit=LATENCY_SECONDS,
                width=HALF,
            ),
            lines(
                "Where the time goes, mean",
                "A request waits in the queue; then its batch is prepared, encoded and searched for.",
                "s",
                *(Query(mean(f"xmc_{stage}_seconds", MODEL, "job"), stage) for stage in STAGES),
                width=HALF,
            ),
            *(
                lines(
                    f"Stage {stage}, p99",
                    "Grows when a model is asked more than it can answer." if stage == "queue" else "Of a batch.",
                    "s",
                    Query(quantile(0.99, f"xmc_{stage}_seconds", MODEL, "model"), "{{model}}"),
                )
                for stage in STAGES
            ),
        ),
    )


def _batches() -> Row:
    return Row(
        "Batches and queues",
        (
            lines(
                "Queries that wait",
                "Beyond XMC_QUEUE_ROWS requests are refused.",
                "short",
                Query(f"sum by (model) (xmc_queue_rows{{{MODEL}}})", "{{model}}"),
            ),
            lines(
                "Queries in a batch, mean",
                "Grows with the load.",
                "short",
                Query(mean("xmc_batch_rows", MODEL, "model"), "{{model}}"),
            ),
            lines(
                "Padding, mean",
                "Share of a batch's input that is computed for nothing.",
                "percentunit",
                Query(mean("xmc_batch_padding_ratio", MODEL, "model"), "{{model}}"),
            ),
            lines(
                "Queries given up",
                "Their deadline had passed (expired), or their client had left (cancelled).",
                "cps",
                *(Query(rate(f"xmc_{what}_total", MODEL), what) for what in ("expired", "cancelled")),
            ),
        ),
    )


def _models() -> Row:
    info = "sum by (model, version, method, asked, device, provider)"
    return Row(
        "Models",
        (
            Panel(
                "Loaded",
                "What was asked of --device, and where each model runs; the value counts instances.",
                "table",
                "short",
                (Query(f"{info} (xmc_model_info{{{MODEL}}})", "{{model}} {{device}}"),),
                width=WHOLE,
            ),
            lines(
                "Time to load",
                "Opening, verifying and warming up.",
                "s",
                Query(f"max by (model, version) (xmc_model_load_seconds{{{MODEL}}})", "{{model}}:{{version}}"),
                width=THIRD,
            ),
            lines(
                "Loads while serving",
                "Within an hour.",
                "short",
                Query(f"sum by (result) (increase(xmc_model_swaps_total{{{INSTANCE}}}[1h]))", "{{result}}"),
                width=THIRD,
            ),
            lines(
                "Labels changed while serving",
                "Since the bundle was built.",
                "short",
                *(
                    Query(f"max by (model) (xmc_labels_{what}{{{MODEL}}})", f"{{{{model}}}} {what}")
                    for what in ("added", "disabled")
                ),
                width=THIRD,
            ),
            lines(
                "Shadows: requests by result",
                "Dropped ones found no room.",
                "reqps",
                Query(rate("xmc_shadow_requests_total", MODEL, "model", "result"), "{{model}} {{result}}"),
                width=THIRD,
            ),
            lines(
                "Shadows: agreement, mean",
                "Share of labels in common with what was answered.",
                "percentunit",
                Query(mean("xmc_shadow_agreement", MODEL, "model"), "{{model}}"),
                width=THIRD,
            ),
            lines(
                "Shadows: delay, p99",
                "How much later they answer; below 0 they are sooner.",
                "s",
                Query(quantile(0.99, "xmc_shadow_delay_seconds", MODEL, "model"), "{{model}}"),
                width=THIRD,
            ),
        ),
    )


def _answers() -> Row:
    drifted = f'max by (model, version, reference) ({DRIFTED}{{{OWNER},model=~"$model"}})'
    return Row(
        "Queries and answers",
        (
            *(
                lines(
                    f"Best score, p{share * 100:g}",
                    "Each method has a scale of its own.",
                    "short",
                    Query(quantile(share, "xmc_top_score", MODEL, "model"), "{{model}}"),
                    width=THIRD,
                )
                for share in (0.1, 0.5)
            ),
            lines(
                "Best score, drift",
                "Largest difference between the distributions of an hour and of the same a day or a week ago.",
                "percentunit",
                Query(drifted, "{{model}}, {{reference}}"),
                limit=DRIFT,
                width=THIRD,
            ),
            lines(
                "Texts cut off",
                "Longer than the model reads.",
                "cps",
                Query(rate("xmc_truncated_inputs_total", MODEL, "model"), "{{model}}"),
                width=HALF,
            ),
            lines(
                "Queries with a filter",
                "Or with disabled labels; direct ones score all labels that are allowed.",
                "cps",
                Query(rate("xmc_filtered_queries_total", MODEL, "mode"), "{{mode}}"),
                width=HALF,
            ),
        ),
    )


def _means() -> Row:
    gpu_used, gpu_limit = f"xmc_gpu_memory_bytes{{{INSTANCE}}}", f"xmc_gpu_memory_limit_bytes{{{INSTANCE}}}"
    lost = (("xmc_log_lines_dropped_total", "log lines"), ("xmc_prediction_log_dropped_total", "predictions"))
    return Row(
        "Means",
        (
            lines(
                "Memory of processes",
                "Mapped files of bundles included.",
                "bytes",
                Query(f"sum by (model) (xmc_model_resident_bytes{{{MODEL}}})", "{{model}}"),
                Query(f"sum(process_resident_memory_bytes{{{INSTANCE}}})", "HTTP"),
            ),
            lines(
                "Memory of what is allowed",
                "All processes of an instance, of the limit of its control group or the machine's memory.",
                "percentunit",
                Query(f"{MEMORY}{{{INSTANCE}}}", "{{instance}}"),
                limit=MEMORY_SHARE,
            ),
            lines(
                "Processors used for HTTP",
                "One thread speaks HTTP: near 1 it is full.",
                "short",
                Query(rate("process_cpu_seconds_total", INSTANCE, "instance"), "{{instance}}"),
            ),
            lines(
                "Event loop lag, p99",
                "Every request waits as long.",
                "s",
                Query(f"{LAG_P99}{{{INSTANCE}}}", "{{instance}}"),
                limit=EVENT_LOOP_LAG_SECONDS,
            ),
            lines(
                "Memory limit",
                "The least of all instances.",
                "bytes",
                Query(f"min(xmc_memory_limit_bytes{{{INSTANCE}}})", "limit"),
            ),
            lines(
                "Open files",
                "Connections among them.",
                "short",
                Query(f"sum by (instance) (process_open_fds{{{INSTANCE}}})", "{{instance}}"),
            ),
            lines(
                "Lost within an hour",
                "Of the log and of the prediction log.",
                "short",
                *(Query(f"sum(increase({counter}{{{INSTANCE}}}[1h]))", what) for counter, what in lost),
            ),
            Panel(
                "GPU memory in use",
                "By whomever.",
                "lines",
                "percentunit",
                (Query(f"{gpu_used} / {gpu_limit}", "{{instance}} {{gpu}}"),),
                limit=GPU_MEMORY_SHARE,
                needs_gpu=True,
            ),
        ),
    )
