"""`POST /predict` apart from the connection: a head and a body in, an answer out.

Whoever speaks with the client calls `ask`, waits for the future and calls `answer`.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import NamedTuple

from service.batching.client import Served
from service.bundle.manifest import FeaturesInput
from service.errors import InvalidRequest, NotJson
from service.http.asgi import Headers, header
from service.http.doorkeeper import Doorkeeper
from service.http.exchange import Exchange
from service.http.reply import Reply
from service.models.model import Model
from service.models.queries import Labelled, Query, Wish
from service.models.registry import Registry
from service.schemas import PredictRequest, encode_response, feature_queries, parse_predict
from service.settings import Settings

PREDICT = "/predict"

_JSON = b"application/json"
_TIMING = b"queue;dur=%.3f, tokenize;dur=%.3f, encode;dur=%.3f, search;dur=%.3f"


class Pending(NamedTuple):
    """A request that waits for its model.

    Attributes:
        model: that was asked.
        queries: of the request.
        k: labels wanted for each.
        future: of the answers; cancelling it takes the request's queries out of the queue.
    """

    model: Model
    queries: Sequence[Query]
    k: int
    future: asyncio.Future[list[Served[Labelled]]]


class Predictor:
    """Validates requests for labels and queues them."""

    def __init__(self, settings: Settings, registry: Registry, doorkeeper: Doorkeeper) -> None:
        self._settings = settings
        self._registry = registry
        self._doorkeeper = doorkeeper

    def ask(self, exchange: Exchange, headers: Headers, body: bytes) -> Pending:
        """Queue one request; call it on the event loop.

        Raises:
            RequestError: the request is refused.
        """
        require_json(headers)
        return self.submit(exchange, parse_predict(body, self._settings))

    def submit(self, exchange: Exchange, asked: PredictRequest) -> Pending:
        """Queue one request that is read and checked, by whichever protocol it came; call it on the event loop.

        Raises:
            RequestError: the request is refused.
        """
        # Again: other requests may have come between this one's head and its end.
        if (refusal := self._doorkeeper.rate_refusal(exchange)) is not None:
            raise refusal
        model = self._registry.get(asked.model)
        exchange.model = model.name
        queries = _queries(asked, model)
        deadline = math.inf if asked.timeout_ms is None else exchange.started + asked.timeout_ms / 1000
        allowed = None if asked.filter is None else asked.filter.packed()
        wish = Wish(asked.k, asked.min_score, allowed, asked.explain, asked.partial)
        future = model.submit(queries, wish, deadline)
        self._doorkeeper.charge(exchange, len(queries))
        for shadow in self._registry.shadows.get(model.name, ()):
            if shadow.model is not model:
                shadow.follow(future, queries, wish)
        if exchange.trace is not None:
            exchange.trace.note_queued()
        exchange.pending = pending = Pending(model, queries, asked.k, future)
        return pending


def answer(pending: Pending) -> Reply:
    """The answer to a request whose future is done.

    Raises:
        RequestError: the future failed with it.
        asyncio.CancelledError: the future was cancelled.
    """
    predictions, timing = settle(pending)
    body = encode_response(pending.model.name, pending.model.version, predictions)
    return Reply.of(200, body, _JSON, (b"server-timing", timing))


def settle(pending: Pending) -> tuple[list[bytes], bytes]:
    """The JSON of each `Prediction` of a request whose future is done, and the value of Server-Timing.

    Raises:
        RequestError: the future failed with it.
        asyncio.CancelledError: the future was cancelled.
    """
    model = pending.model
    served = pending.future.result()
    predictions = [body for (body, _, _), _, _ in served]
    slowest = slowest_stages(served)
    model.metrics.queue_seconds.observe(slowest[0])
    return predictions, _TIMING % tuple(1000 * seconds for seconds in slowest)


def slowest_stages(served: Sequence[Served[Labelled]]) -> tuple[float, ...]:
    """Seconds of a request in the queue, preparation, encoder and search; where it was split, the longest of each."""
    stages = [(queue, prepare, encode, search) for (_, encode, search), queue, prepare in served]
    return stages[0] if len(stages) == 1 else tuple(map(max, zip(*stages, strict=True)))


def require_json(headers: Headers) -> None:
    """Refuse a body that is not declared as JSON.

    Raises:
        NotJson: it is not.
    """
    written = header(headers, b"content-type")
    if written == _JSON:
        return
    if written is None:
        raise NotJson("expected Content-Type: application/json, found no Content-Type")
    kind = written.split(b";", 1)[0].strip().lower()
    if kind != _JSON and not (kind.startswith(b"application/") and kind.endswith(b"+json")):
        raise NotJson(f"expected Content-Type: application/json, found {written.decode('latin-1')}")


def _queries(asked: PredictRequest, model: Model) -> Sequence[Query]:
    """The queries as the model's engine takes them."""
    section = model.input
    if isinstance(section, FeaturesInput):
        if asked.features is None:
            raise InvalidRequest(f"expected features, because model {model.name} takes no texts; found queries")
        return feature_queries(asked.features, section.dimension)
    if asked.queries is None:
        raise InvalidRequest(f"expected queries, because model {model.name} takes texts; found features")
    return asked.queries
