"""Whoever is told of requests, as the settings choose them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from service.http.exchange import Exchange
from service.metrics import Metrics
from service.settings import Settings
from service.telemetry.access_log import AccessLog
from service.telemetry.predictions import PredictionLog
from service.telemetry.tracing import Tracing

# Told of a request when it has been answered, or its client is gone: the exchange, the route's template, the seconds.
Watcher = Callable[[Exchange, str, float], None]


class Telemetry:
    """The watchers of one process.

    Args:
        settings: of the process.
        metrics: where it is counted what gets lost.

    Attributes:
        access_log: None when it is off.
        tracing: None when it is off.
        predictions: None when it is off.

    Raises:
        SettingsError: what they need is not installed.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self.access_log: AccessLog | None = None
        self.tracing: Tracing | None = None
        self.predictions: PredictionLog | None = None
        if settings.access_log != "off":
            self.access_log = AccessLog(settings.access_log, with_queries=settings.log_queries)
        if settings.prediction_log is not None:
            self.predictions = PredictionLog(
                settings.prediction_log,
                settings.prediction_log_sample,
                settings.log_format,
                metrics.count_unlogged,
            )
        if settings.otlp_endpoint is not None:
            self.tracing = Tracing(settings.otlp_endpoint, settings.trace_ratio)

    @property
    def watchers(self) -> Sequence[Watcher]:
        """Those that are not off."""
        return [watcher for watcher in (self.access_log, self.tracing, self.predictions) if watcher is not None]

    def start(self) -> None:
        """Start what needs a process; call it before there are requests."""
        if self.predictions is not None:
            self.predictions.start()

    async def close(self) -> None:
        """Let go of what they still hold; call it when all requests are answered."""
        if self.predictions is not None:
            await self.predictions.close()
        if self.tracing is not None:
            await asyncio.to_thread(self.tracing.close)
