"""OpenTelemetry traces: a span for each request, with a child for each stage on its way.

    POST /predict  ├ receive ┼ queue ┼ tokenize ┼ encode ┼ search ┼ respond ┤

The names of attributes are OpenTelemetry's for HTTP servers; ours begin with ``xmc.``.
https://opentelemetry.io/docs/specs/semconv/http/http-spans
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from service.errors import SettingsError
from service.http.asgi import Headers, header
from service.http.exchange import UNKNOWN, Exchange
from service.http.predict import slowest_stages
from service.settings import variable

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span
    from opentelemetry.util.types import AttributeValue

OK = 200
OUR_FAULT = 500
# Asked for every few seconds by machines: their spans would bury the others.
UNTRACED = frozenset({"/livez", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready"})

_STAGES = ("queue", "tokenize", "encode", "search")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY"})
_NANOSECONDS = 1e9


class Stage(NamedTuple):
    """A part of a request's time, in nanoseconds since 1970."""

    name: str
    begins: int
    ends: int


class Trace:
    """The span of one request while it lasts.

    Args:
        span: that has begun.
        begins: its first nanosecond since 1970.

    Attributes:
        span: see above.
        begins: see above.
        queued: the nanosecond at which its queries were queued; 0 before.
    """

    __slots__ = ("begins", "queued", "span")

    def __init__(self, span: Span, begins: int) -> None:
        self.span = span
        self.begins = begins
        self.queued = 0

    def note_queued(self) -> None:
        """Note that the request's queries have been queued."""
        self.queued = time.time_ns()

    @property
    def id(self) -> str:
        """The trace's id, 32 hexadecimal digits."""
        return f"{self.span.get_span_context().trace_id:032x}"

    @property
    def mark(self) -> tuple[bytes, bytes]:
        """The header by which the client learns of the trace, of the W3C's draft "Trace Context Level 2"."""
        context = self.span.get_span_context()
        return b"traceresponse", b"00-%032x-%016x-%02x" % (context.trace_id, context.span_id, context.trace_flags)


class Tracing:
    """Begins traces and ends them; everything here happens on the event loop.

    Args:
        endpoint: of the collector that takes them.
        ratio: of requests that are recorded, where their clients have not decided.

    Raises:
        SettingsError: OpenTelemetry is not installed.
    """

    def __init__(self, endpoint: str, ratio: float) -> None:
        try:
            from opentelemetry import trace
            from opentelemetry.context import Context
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

            from service.telemetry.export import Pipeline
        except ImportError as error:
            raise SettingsError(
                f"{variable('otlp_endpoint')} needs the extra otel (pip install 'xmcserve[otel]'): {error}"
            ) from None
        self._api = trace
        self._no_context = Context()
        self._propagator = TraceContextTextMapPropagator()
        self._ratio = ratio
        self._pipeline = Pipeline(endpoint)

    def begin(self, method: str, path: str, headers: Headers) -> Trace | None:
        """The trace of a request whose head has arrived, which goes on with its client's; None where there is none."""
        if path in UNTRACED:
            return None
        inside = self._clients(headers)
        if inside is None:
            # Drawn here rather than by the SDK: a span that nobody records is not free either.
            if random.random() >= self._ratio:
                return None
            inside = self._no_context
        begins = time.time_ns()
        known = method if method in _METHODS else "_OTHER"
        span = self._pipeline.tracer.start_span(
            _name(method),
            context=inside,
            kind=self._api.SpanKind.SERVER,
            attributes={"http.request.method": known, "url.path": path, "url.scheme": "http"},
            start_time=begins,
        )
        return Trace(span, begins)

    def __call__(self, exchange: Exchange, endpoint: str, seconds: float) -> None:
        """End the trace of a request.

        Args:
            exchange: with its status and its error.
            endpoint: the route's template.
            seconds: its duration.
        """
        trace = exchange.trace
        if trace is None:
            return
        span, ends = trace.span, trace.begins + int(_NANOSECONDS * seconds)
        if span.is_recording():
            span.set_attributes(dict(_attributes(exchange, endpoint)))
            if endpoint != UNKNOWN:
                span.update_name(f"{_name(exchange.method)} {endpoint}")
            if exchange.status >= OUR_FAULT:
                title = None if exchange.error is None else exchange.error.title
                span.set_status(self._api.StatusCode.ERROR, title)
            inside = self._api.set_span_in_context(span, self._no_context)
            for name, begins, end in _stages(exchange, trace, ends):
                self._pipeline.tracer.start_span(name, inside, start_time=begins).end(end)
        span.end(ends)

    def _clients(self, headers: Headers) -> Context | None:
        """The trace that a client is in, if it says so in a way that is understood."""
        if header(headers, b"traceparent") is None:
            return None
        found = {name: header(headers, name.encode()) for name in ("traceparent", "tracestate")}
        carrier = {name: value.decode("latin-1") for name, value in found.items() if value is not None}
        context = self._propagator.extract(carrier, self._no_context)
        return context if self._api.get_current_span(context).get_span_context().is_valid else None

    def close(self) -> None:
        """Send what waits; it takes no longer than the collector, and a few seconds without one."""
        self._pipeline.close()


def _name(method: str) -> str:
    return method if method in _METHODS else "HTTP"


def _attributes(exchange: Exchange, endpoint: str) -> Iterator[tuple[str, AttributeValue]]:
    yield "http.response.status_code", exchange.status
    yield "xmc.request_id", exchange.request_id
    if endpoint != UNKNOWN:
        yield "http.route", endpoint
    if exchange.status >= OUR_FAULT:
        yield "error.type", str(exchange.status)
    if exchange.error is not None:
        yield "xmc.problem", exchange.error.title
    if (pending := exchange.pending) is not None:
        yield "xmc.model", pending.model.name
        yield "xmc.version", pending.model.version
        yield "xmc.rows", len(pending.queries)
        yield "xmc.k", pending.k


def _stages(exchange: Exchange, trace: Trace, ends: int) -> Iterator[Stage]:
    """The stages of a request that was queued.

    The beginning of "queue" is measured, and how long each stage took. Where they begin is not: they follow each other
    here, so that what a query waited between "tokenize" and "encode" is part of "queue". What is left is "respond".
    """
    pending = exchange.pending
    if pending is None or not trace.queued:
        return
    yield Stage("receive", trace.begins, trace.queued)
    if exchange.status == OK:
        begins = trace.queued
        for name, seconds in zip(_STAGES, slowest_stages(pending.future.result()), strict=True):
            end = min(begins + int(_NANOSECONDS * seconds), ends)
            yield Stage(name, begins, end)
            begins = end
        yield Stage("respond", begins, ends)
