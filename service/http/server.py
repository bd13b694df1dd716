"""The serving process: uvicorn with a shutdown that drops nothing.

On SIGTERM the process first only says that it leaves (`/readyz` 503, `Connection: close` on every answer) and goes on
answering for `drain_seconds`, because load balancers need that long to notice. Then it refuses new queries with 503,
answers what it has taken, and exits 0. SIGINT does the same without the wait. A second signal ends the process at once.

    LOADING ──▶ SERVING ──SIGTERM──▶ LEAVING ──drain_seconds──▶ CLOSED ──nothing in flight──▶ exit 0
                   └──────SIGINT────────────────────────────────▶┘
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable, Sequence
from types import FrameType

import uvicorn
from prometheus_client import start_http_server

from service.http.app import create_app
from service.http.asgi import Application
from service.http.lifecycle import Lifecycle, Phase
from service.http.protocol import Protocol
from service.memory import machine_bytes, memory_limit_bytes
from service.metrics import Metrics
from service.models.launch import Launched, launch
from service.nvml import Nvml, NvmlError
from service.settings import Settings

logger = logging.getLogger(__name__)

# Idle connections stay open longer than any usual load balancer keeps them: the side that closes first wins no race.
KEEP_ALIVE_SECONDS = 75
# After a drain, so that clients that are just coming hear 503 rather than a reset.
LAST_WORDS_SECONDS = 0.5
# For requests whose bodies never end; those that wait for a model take a fraction of it.
GRACE_SECONDS = 30


class Server(uvicorn.Server):
    """uvicorn, led by the process's lifecycle.

    Args:
        app: the application.
        settings: of the process.
        lifecycle: of the process; a failure in it ends the server.
        metrics: tells what is in flight.
    """

    def __init__(self, app: Application, settings: Settings, lifecycle: Lifecycle, metrics: Metrics) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                host=settings.host,
                port=settings.port,
                loop="uvloop",
                http=Protocol,
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=GRACE_SECONDS,
            )
        )
        self._drain_seconds = settings.drain_seconds
        self._lifecycle = lifecycle
        self._metrics = metrics
        self._phase_ends = 0.0

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin the shutdown; uvicorn's own handler would exit with the signal instead of 0."""
        if self._lifecycle.is_leaving:
            logger.warning("%s: ending at once", signal.Signals(sig).name)
            logging.shutdown()
            os._exit(1)
        logger.info("%s: shutting down", signal.Signals(sig).name)
        if sig == signal.SIGINT or self._lifecycle.phase is not Phase.SERVING:
            self._drain_seconds = 0.0
        self._enter(Phase.LEAVING, self._drain_seconds)

    async def on_tick(self, counter: int) -> bool:
        """Every tenth of a second: move the shutdown on; True ends the server."""
        await super().on_tick(counter)
        if self._lifecycle.failure is not None:
            return True
        if self._lifecycle.phase is Phase.LEAVING and time.monotonic() >= self._phase_ends:
            self._enter(Phase.CLOSED, LAST_WORDS_SECONDS if self._drain_seconds else 0.0)
        if self._lifecycle.phase is Phase.CLOSED:
            return time.monotonic() >= self._phase_ends and not self._metrics.inflight_requests
        return False

    def _enter(self, phase: Phase, seconds: float) -> None:
        self._lifecycle.phase = phase
        self._phase_ends = time.monotonic() + seconds


def serve(settings: Settings, workers: Sequence[Launched], lost_lines: Callable[[], int]) -> int:
    """Serve until a signal or a failure.

    Args:
        settings: of the process.
        workers: one for each of its bundles.
        lost_lines: counts what the log has lost.

    Returns:
        Exit code: 0 after a signal, 1 when a bundle cannot be served or an address cannot be listened on.
    """
    lifecycle = Lifecycle()
    try:
        metrics = open_metrics(settings, lost_lines)
    except OSError as error:
        logger.critical("cannot listen for metrics on %s:%s: %s", settings.host, settings.metrics_port, error)
        return 1
    server = Server(create_app(settings, lifecycle, metrics, workers, launch), settings, lifecycle, metrics)
    try:
        server.run()
    except SystemExit as error:  # uvicorn's way to say that it could not start; it has logged why
        logger.critical("the server could not start")
        return 1 if error.code else 0
    return 0 if lifecycle.failure is None else 1


def open_metrics(settings: Settings, lost_lines: Callable[[], int]) -> Metrics:
    """The series of a serving process, also on a port of their own where there shall be one.

    Args:
        settings: of the process.
        lost_lines: counts what the log has lost.

    Raises:
        OSError: the port cannot be listened on.
    """
    metrics = Metrics()
    metrics.watch_log(lost_lines)
    metrics.set_memory_limit(_memory_limit_bytes())
    if settings.device != "cpu":
        _watch_gpus(metrics)
    if settings.metrics_port is not None:
        httpd, _ = start_http_server(settings.metrics_port, settings.host, metrics.registry)
        logger.info("metrics on http://%s:%d/metrics", *httpd.server_address[:2])
    return metrics


def _watch_gpus(metrics: Metrics) -> None:
    """Have the metrics tell of GPUs where there are some."""
    try:
        metrics.watch_gpus(Nvml.open().memory)
    except NvmlError as error:
        logger.info("no metrics of GPUs: %s", error)


def _memory_limit_bytes() -> int:
    """Memory that the processes of the service may have together."""
    return min(machine_bytes(), memory_limit_bytes() or machine_bytes())
