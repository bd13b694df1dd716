"""From finished spans to a collector, by OpenTelemetry's SDK, on a thread of its own."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from importlib.metadata import version

from opentelemetry.exporter.otlp.proto.http import trace_exporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased

logger = logging.getLogger(__name__)

# A batch that is not taken in this time is dropped, and a shutdown waits no longer for a collector that is not there.
TIMEOUT_SECONDS = 3
# Spans that wait to be sent; what comes then is dropped.
QUEUE_SPANS = 8192


class _Reasons(logging.Filter):
    """Keeps the exporter's own lines out of the log, of which each failure would have several.

    Attributes:
        last: the last of them.
    """

    last = ""

    def filter(self, record: logging.LogRecord) -> bool:
        """See `logging.Filter.filter`."""
        self.last = record.getMessage()
        return False


class Exporter(SpanExporter):
    """OTLP over HTTP; a collector that fails has one line in the log, and one when it is back.

    Args:
        endpoint: of the collector, without the path.
    """

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._exporter = OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces", timeout=TIMEOUT_SECONDS)
        self._reasons = _Reasons()
        logging.getLogger(trace_exporter.__name__).addFilter(self._reasons)
        self._fails = False
        self._is_closing = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """See `SpanExporter.export`."""
        if self._is_closing and self._fails:
            return SpanExportResult.FAILURE
        result = self._exporter.export(spans)
        fails = result is not SpanExportResult.SUCCESS
        if fails and not self._fails:
            logger.warning("traces are lost until %s takes them: %s", self._endpoint, self._reasons.last)
        elif self._fails and not fails:
            logger.info("%s takes traces again", self._endpoint)
        self._fails = fails
        return result

    def close(self) -> None:
        """Send what waits, unless nobody takes it."""
        self._is_closing = True

    def shutdown(self) -> None:
        """See `SpanExporter.shutdown`."""
        self._exporter.shutdown()  # type: ignore[no-untyped-call]
        logging.getLogger(trace_exporter.__name__).removeFilter(self._reasons)


class Pipeline:
    """What makes spans, unless their parent is not recorded, and sends them.

    Args:
        endpoint: of the collector.

    Attributes:
        tracer: makes spans.
    """

    def __init__(self, endpoint: str) -> None:
        self._exporter = Exporter(endpoint)
        ours = Resource({"service.name": "xmcserve", "service.version": version("xmcserve")})
        self._provider = TracerProvider(
            sampler=ParentBased(ALWAYS_ON),
            resource=Resource.get_empty().merge(ours).merge(OTELResourceDetector().detect()),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter, max_queue_size=QUEUE_SPANS))
        self.tracer = self._provider.get_tracer("xmcserve")

    def close(self) -> None:
        """Send what waits and end the thread."""
        self._exporter.close()
        self._provider.shutdown()
