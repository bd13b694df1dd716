"""Whoever is told of requests, as the settings choose them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from service.http.exchange import Exchange
from service.settings import Settings
from service.telemetry.access_log import AccessLog

# Told of a request when it has been answered, or its client is gone: the exchange, the route's template, the seconds.
Watcher = Callable[[Exchange, str, float], None]


class Telemetry:
    """The watchers of one process.

    Args:
        settings: of the process.

    Attributes:
        access_log: None when it is off.
    """

    def __init__(self, settings: Settings) -> None:
        self.access_log = (
            None if settings.access_log == "off" else AccessLog(settings.access_log, with_queries=settings.log_queries)
        )

    @property
    def watchers(self) -> Sequence[Watcher]:
        """Those that are not off."""
        return [watcher for watcher in (self.access_log,) if watcher is not None]
