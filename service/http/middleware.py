"""The gate that every request passes: its id, the early refusals, its errors and its metrics.

One pure ASGI callable around the framework. What it can refuse on the head of a request alone, it refuses at once, so
that a request that cannot be served costs neither its body nor a route. `service.http.protocol` takes requests for
labels through the same gate by a shorter way.
"""

from __future__ import annotations

import logging
import time

from service.errors import RequestError
from service.http.asgi import Application, Headers, Message, Receive, Scope, Send, header, too_large
from service.http.doorkeeper import Doorkeeper
from service.http.exchange import UNKNOWN, Exchange
from service.http.lifecycle import Lifecycle
from service.http.predict import PREDICT, Predictor
from service.http.problems import error_reply, internal_error_reply
from service.http.reply import Reply
from service.http.turnstile import Turnstile
from service.metrics import REJECTIONS, Metrics
from service.models.registry import Registry
from service.settings import Settings
from service.telemetry.telemetry import Telemetry

logger = logging.getLogger(__name__)

CLOSE = (b"connection", b"close")


class Gate:
    """The application with the gate around it.

    Attributes:
        predictor: what answers `POST /predict`.
        turnstile: what refuses it unread.
        max_body_bytes: of any request.
        request_seconds: from a request's first byte to its last.
    """

    def __init__(
        self,
        app: Application,
        *,
        settings: Settings,
        lifecycle: Lifecycle,
        metrics: Metrics,
        registry: Registry,
        telemetry: Telemetry,
    ) -> None:
        self._doorkeeper = Doorkeeper(settings)
        self.predictor = Predictor(settings, registry, self._doorkeeper)
        self.turnstile = Turnstile(lifecycle, registry, metrics, telemetry.access_log)
        self.max_body_bytes = settings.max_body_bytes
        self.request_seconds = settings.request_seconds
        self._app = app
        self._lifecycle = lifecycle
        self._metrics = metrics
        self._registry = registry
        self._tracing = telemetry.tracing
        self._watchers = telemetry.watchers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; anything but HTTP passes through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = self.enter(scope["headers"], scope["method"], scope["path"])
        exchange.enter(scope)

        async def send_marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                message["headers"] = [*message.get("headers", ()), *self.marks(exchange)]
            await send(message)

        try:
            exchange.error = self.refusal(exchange, scope["method"], scope["path"], scope["headers"])
            if exchange.error is not None:
                await error_reply(exchange.error, exchange.request_id, scope["path"]).send(send_marked)
            else:
                await self._app(scope, receive, send_marked)
        except Exception as error:
            reply = self.our_bug(exchange, error)
            if not exchange.status:
                await reply.send(send_marked)
        finally:
            self.leave(exchange, _endpoint(scope))

    def enter(self, headers: Headers, method: str = "", path: str = "") -> Exchange:
        """Count a request in.

        Args:
            headers: names in lower case.
            method: in upper case; empty where there is none.
            path: as routes are matched; empty where there is none.
        """
        self._metrics.inflight_requests += 1
        exchange = Exchange.of(headers, method)
        if self._tracing is not None:
            exchange.trace = self._tracing.begin(method, path, headers)
        return exchange

    def leave(self, exchange: Exchange, endpoint: str) -> None:
        """Count a request out that has been answered, or whose client is gone.

        Args:
            exchange: with its status and its error.
            endpoint: the route's template.
        """
        self._metrics.inflight_requests -= 1
        if reason := REJECTIONS.get(type(exchange.error)):
            self._metrics.reject(reason)
        seconds = time.monotonic() - exchange.started
        self._metrics.observe_request(endpoint, exchange.model, exchange.status, seconds)
        for watch in self._watchers:
            watch(exchange, endpoint, seconds)

    def refusal(self, exchange: Exchange, method: str, path: str, headers: Headers) -> RequestError | None:
        """Why a request is refused on its head alone, or None."""
        if (refusal := self._doorkeeper.refusal(exchange, method, path, headers)) is not None:
            return refusal
        if path == PREDICT and (refusal := self._lifecycle.refusal() or self._registry.refusal()):
            return refusal
        length = header(headers, b"content-length")
        if length is not None and length.isdigit() and int(length) > self.max_body_bytes:
            return too_large(self.max_body_bytes)
        return None

    def marks(self, exchange: Exchange) -> list[tuple[bytes, bytes]]:
        """The headers that every answer has."""
        marks = [(b"x-request-id", exchange.request_id.encode())]
        if exchange.trace is not None:
            marks.append(exchange.trace.mark)
        if self._lifecycle.is_leaving:
            marks.append(CLOSE)
        return marks

    def part_refused(self, error: RequestError) -> Reply:
        """The answer to a request that is refused before its head is complete; its connection must be closed."""
        exchange = self.enter(())
        exchange.error, exchange.status = error, error.status
        self.leave(exchange, UNKNOWN)
        reply = error_reply(error, exchange.request_id)
        reply.headers += [*self.marks(exchange), CLOSE]
        return reply

    def our_bug(self, exchange: Exchange, error: Exception) -> Reply:
        """Log an error that nothing foresaw; the answer says only where to look."""
        logger.error("unexpected error", exc_info=error, extra={"request_id": exchange.request_id})
        return internal_error_reply(exchange.request_id)


def _endpoint(scope: Scope) -> str:
    """The route's template, or `UNKNOWN`."""
    route = scope.get("route")
    if route is not None:
        template: str = route.path
        return template
    return PREDICT if scope["path"] == PREDICT else UNKNOWN
