"""The gate that every request passes: its id, the early refusals, its errors and its metrics.

One pure ASGI callable around the framework. What it can refuse on the head of a request alone, it refuses at once, so
that a request that cannot be served costs neither its body nor a route.
"""

from __future__ import annotations

import logging
import random
import re
import time
from dataclasses import dataclass, field

from service.asgi import Application, Headers, Message, Receive, Scope, Send, header, too_large
from service.errors import BodyTooLarge, Draining, NotReady, QueueFull, RequestError
from service.lifecycle import Lifecycle
from service.metrics import Metrics
from service.problems import error_response, internal_error_response
from service.registry import Registry
from service.settings import Settings

logger = logging.getLogger(__name__)

PREDICT = "/predict"
REJECTIONS: dict[type, str] = {
    QueueFull: "queue_full",
    NotReady: "not_ready",
    Draining: "draining",
    BodyTooLarge: "body_too_large",
}

_SCOPE_KEY = "xmcserve.exchange"
_SANE_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")


@dataclass(slots=True)
class Exchange:
    """One request and its answer, as far as the gate cares.

    Attributes:
        request_id: the client's if it is sane, else one of ours.
        started: second of `time.monotonic` at which the head had arrived.
        model: name of the model that answers; the route sets it.
        error: why it is refused; the gate or the application's error handler sets it.
        status: of the answer; 0 before there is one.
    """

    request_id: str
    started: float = field(default_factory=time.monotonic)
    model: str = ""
    error: RequestError | None = None
    status: int = 0


def exchange_of(scope: Scope) -> Exchange:
    """The exchange that the gate has put into a request's scope."""
    exchange: Exchange = scope[_SCOPE_KEY]
    return exchange


class Gate:
    """The application with the gate around it."""

    def __init__(
        self, app: Application, *, settings: Settings, lifecycle: Lifecycle, metrics: Metrics, registry: Registry
    ) -> None:
        self._app = app
        self._max_body_bytes = settings.max_body_bytes
        self._lifecycle = lifecycle
        self._metrics = metrics
        self._registry = registry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; anything but HTTP passes through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = scope[_SCOPE_KEY] = Exchange(_request_id(scope["headers"]))

        async def send_marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                message["headers"] = self._mark(message.get("headers", ()), exchange)
            await send(message)

        self._metrics.inflight_requests += 1
        try:
            exchange.error = self._refusal(scope)
            if exchange.error is not None:
                await error_response(exchange.error, exchange.request_id)(scope, receive, send_marked)
            else:
                await self._app(scope, receive, send_marked)
        except Exception as error:
            logger.error("unexpected error", exc_info=error, extra={"request_id": exchange.request_id})
            if not exchange.status:
                await internal_error_response(exchange.request_id)(scope, receive, send_marked)
        finally:
            self._metrics.inflight_requests -= 1
            self._observe(scope, exchange)

    def _refusal(self, scope: Scope) -> RequestError | None:
        """Why the request is refused on its head alone, or None."""
        if scope["path"] == PREDICT and (refusal := self._lifecycle.refusal() or self._registry.refusal()):
            return refusal
        length = header(scope["headers"], b"content-length")
        if length is not None and length.isdigit() and int(length) > self._max_body_bytes:
            return too_large(self._max_body_bytes)
        return None

    def _observe(self, scope: Scope, exchange: Exchange) -> None:
        if reason := REJECTIONS.get(type(exchange.error)):
            self._metrics.reject(reason)
        seconds = time.monotonic() - exchange.started
        self._metrics.observe_request(_endpoint(scope), exchange.model, exchange.status, seconds)

    def _mark(self, headers: Headers, exchange: Exchange) -> list[tuple[bytes, bytes]]:
        marked = [*headers, (b"x-request-id", exchange.request_id.encode())]
        if self._lifecycle.is_leaving:
            marked.append((b"connection", b"close"))
        return marked


def _request_id(headers: Headers) -> str:
    given = header(headers, b"x-request-id")
    if given is not None and _SANE_ID.fullmatch(given):
        return given.decode()
    return f"{random.getrandbits(128):032x}"  # uuid4 would ask the kernel for each request


def _endpoint(scope: Scope) -> str:
    """The route's template: paths of clients would make series without end."""
    route = scope.get("route")
    if route is not None:
        template: str = route.path
        return template
    return PREDICT if scope["path"] == PREDICT else "unknown"
