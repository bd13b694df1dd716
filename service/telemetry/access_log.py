"""A line for each request that was answered, or for each that was refused or failed."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from service.http.exchange import Exchange
from service.models.queries import Features, Query
from service.settings import AccessLogging

logger = logging.getLogger(__name__)

ERRORS_FROM = 400
OUR_FAULT = 500
# Of refused and failed requests: whoever sends too many must not fill the log as well.
LINES_PER_SECOND = 100
SUMMARY_SECONDS = 1.0


class AccessLog:
    """Writes the lines; everything here happens on the event loop.

    Args:
        chosen: "all", or "errors" for those with a status of 400 or above, at most `LINES_PER_SECOND` of them.
        with_queries: whether lines hold what was asked.
    """

    def __init__(self, chosen: AccessLogging, *, with_queries: bool) -> None:
        self._is_bounded = chosen == "errors"
        self._with_queries = with_queries
        self._second = 0
        self._lines = 0
        self._passed_over = 0

    def __call__(self, exchange: Exchange, endpoint: str, seconds: float) -> None:
        """Write the line of a request.

        Args:
            exchange: with its status and its error.
            endpoint: the route's template.
            seconds: its duration.
        """
        if self._is_bounded:
            if exchange.status < ERRORS_FROM:
                return
            if not self._has_room():
                self.pass_over()
                return
        title = "" if exchange.error is None else f" {exchange.error.title}"
        logger.log(
            _level(exchange.status),
            "%s %s %d%s",
            exchange.method or "request",
            endpoint,
            exchange.status,
            title,
            extra={"request_id": exchange.request_id, "fields": self._fields(exchange, endpoint, seconds)},
        )

    def pass_over(self) -> None:
        """Count a refused request that has no line of its own; they soon have one together."""
        if not self._passed_over:
            asyncio.get_running_loop().call_later(SUMMARY_SECONDS, self._sum_up)
        self._passed_over += 1

    def _has_room(self) -> bool:
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._lines = second, 0
        self._lines += 1
        return self._lines <= LINES_PER_SECOND

    def _sum_up(self) -> None:
        passed_over, self._passed_over = self._passed_over, 0
        logger.warning("%d refused requests without a line of their own", passed_over)

    def _fields(self, exchange: Exchange, endpoint: str, seconds: float) -> dict[str, Any]:
        fields: dict[str, Any] = {"endpoint": endpoint, "status": exchange.status}
        if exchange.error is not None:
            fields["problem"] = exchange.error.title
            if exchange.status >= OUR_FAULT:  # those of clients may hold parts of what was asked
                fields["detail"] = exchange.error.detail
        fields["milliseconds"] = round(1000 * seconds, 3)
        if exchange.trace is not None:
            fields["trace_id"] = exchange.trace.id
        if exchange.key is not None:
            fields["key"] = exchange.key.name
        if (pending := exchange.pending) is not None:
            fields |= {"model": pending.model.identity, "rows": len(pending.queries), "k": pending.k}
            if self._with_queries:
                fields["queries"] = [_written(query) for query in pending.queries]
        return fields


def _level(status: int) -> int:
    if status == OUR_FAULT:
        return logging.ERROR
    return logging.INFO if status < ERRORS_FROM else logging.WARNING


def _written(query: Query) -> object:
    if isinstance(query, Features):
        return {"indices": list(query.indices), "values": list(query.values)}
    return query
