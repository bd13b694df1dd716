"""A typed client of the HTTP interface, synchronous and asynchronous.

    with Client("http://127.0.0.1:8000") as client:
        answer = client.predict(["a fast web server"], k=5)
        best = answer.predictions[0].labels[0]

Answers are the models of `service.schemas`. Asking changes nothing on the server, so what a full queue (429), a server
that loads or shuts down (503) or a broken connection has prevented is asked again: not before the server's
``Retry-After``, at most so many times, and never when the time is over.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Self, TypedDict, Unpack
from urllib.parse import quote

import httpx
import orjson
from pydantic import BaseModel, ValidationError

from service.schemas import FeatureVector, ModelDetail, ModelList, ModelSummary, PredictResponse, Problem

RETRIED = (429, 503)
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.05, 2.0
# Of a pause that the server has named: those it has refused together should not come back together.
JITTER = 0.25
# How long a 504, which the server sends at the deadline, may be on its way.
GRACE_SECONDS = 1.0
# Of a text that is no problem document.
LONGEST_SHOWN = 200


class ClientError(Exception):
    """No labels came; the sentence says why."""


class Refused(ClientError):
    """The server has answered with an error.

    Attributes:
        problem: the document that it sent; of an answer that is none, such as a proxy's, one with its status and text.
        retry_after_seconds: when to come back, if the server says it.
    """

    def __init__(self, problem: Problem, retry_after_seconds: float | None) -> None:
        super().__init__(f"{problem.status} {problem.title}: {problem.detail}")
        self.problem = problem
        self.retry_after_seconds = retry_after_seconds


class NoAnswer(ClientError):
    """The server could not be reached, has broken off, or has not answered in time; the cause is what httpx found."""


class Options(TypedDict, total=False):
    """What may be asked beside the queries; see `service.schemas.PredictRequest`. Only what is given is sent."""

    features: Sequence[FeatureVector]
    k: int
    model: str
    min_score: float
    timeout_ms: int
    filter: Mapping[str, Sequence[str]]
    explain: bool
    partial: bool


@dataclass(frozen=True)
class Retries:
    """How hard a client tries.

    Attributes:
        attempts: at most, for one question.
        total_seconds: after which there is no further attempt, and none is waited for, whatever its ``timeout_ms``.
    """

    attempts: int = 4
    total_seconds: float = 30.0


DEFAULT_RETRIES = Retries()


class Call:
    """One question in as many attempts as it takes, apart from how they are sent and how time passes.

    Args:
        retries: how many.
        fields: of the body, if there is one; their ``timeout_ms`` holds for all attempts together.
    """

    def __init__(self, retries: Retries, fields: Mapping[str, Any] | None = None) -> None:
        now = time.monotonic()
        self._attempts = retries.attempts
        self._made = 0
        self._next_pause = FIRST_PAUSE_SECONDS
        self._ends = now + retries.total_seconds
        self._deadline = math.inf
        self._fields = fields
        if fields is not None and "timeout_ms" in fields:
            self._deadline = now + fields["timeout_ms"] / 1000

    def body(self) -> bytes | None:
        """The body of the next attempt, which may take what earlier ones have left of the time."""
        if self._fields is None:
            return None
        fields = dict(self._fields)
        if self._made and self._deadline < math.inf:
            fields["timeout_ms"] = max(1, round(1000 * (self._deadline - time.monotonic())))
        return orjson.dumps(fields, default=BaseModel.model_dump)

    def seconds(self) -> float:
        """How long the next attempt may take."""
        return max(0.001, min(self._ends, self._deadline + GRACE_SECONDS) - time.monotonic())

    def after(self, outcome: httpx.Response | httpx.TransportError) -> bytes | float:
        """What follows from an attempt.

        Returns:
            The body of the answer, or the seconds until the next attempt.

        Raises:
            Refused: the server has answered with an error that lasts, or there is no time or attempt left.
            NoAnswer: it has not answered, and there is no time or attempt left.
        """
        if isinstance(outcome, httpx.Response):
            if outcome.is_success:
                return outcome.content
            failure: ClientError = Refused(_problem(outcome), _retry_after(outcome))
            lasts = outcome.status_code not in RETRIED
        else:
            failure, lasts = NoAnswer(f"{outcome.request.url}: {type(outcome).__name__} {outcome}".rstrip()), False
        pause = self._pause(failure)
        self._made += 1
        if lasts or self._made >= self._attempts or time.monotonic() + pause >= min(self._ends, self._deadline):
            raise failure from (outcome if isinstance(outcome, httpx.TransportError) else None)
        return pause

    def _pause(self, failure: ClientError) -> float:
        """Not before the time that the server names; where it names none, about twice as long each time."""
        if isinstance(failure, Refused) and failure.retry_after_seconds is not None:
            seconds = failure.retry_after_seconds
            return seconds + max(FIRST_PAUSE_SECONDS, JITTER * seconds) * random.random()
        pause, self._next_pause = self._next_pause, min(LONGEST_PAUSE_SECONDS, 2 * self._next_pause)
        return pause * random.uniform(0.5, 1)


def _retry_after(response: httpx.Response) -> float | None:
    """``Retry-After`` in seconds; proxies may send it as a date."""
    written = response.headers.get("retry-after", "")
    if written.isdigit():
        return float(written)
    try:
        return max(0.0, parsedate_to_datetime(written).timestamp() - time.time())
    except ValueError:
        return None


def _problem(response: httpx.Response) -> Problem:
    """What an answer that is an error says."""
    try:
        return Problem.model_validate_json(response.content)
    except ValidationError:
        request_id = response.headers.get("x-request-id", "")
        title, detail = response.reason_phrase, response.text[:LONGEST_SHOWN]
        return Problem(title=title, status=response.status_code, detail=detail, request_id=request_id)


class Client:
    """A synchronous client, for any number of threads; close it, or use it in a ``with``.

    Args:
        url: of the server, e.g. ``http://127.0.0.1:8000``; it may have a path.
        api_key: is sent as ``Authorization: Bearer``.
        retries: for every question.
    """

    def __init__(self, url: str, *, api_key: str | None = None, retries: Retries = DEFAULT_RETRIES) -> None:
        self._http = httpx.Client(base_url=url, headers=_headers(api_key))
        self._retries = retries

    def predict(self, queries: Sequence[str] | None = None, **options: Unpack[Options]) -> PredictResponse:
        """Best labels for each query.

        Args:
            queries: texts, for a model that takes texts; for others there are `features` among the options.
            **options: see `Options`.

        Raises:
            Refused: the server has answered with an error.
            NoAnswer: it has not answered.
        """
        return PredictResponse.model_validate_json(self._ask("POST", "/predict", _fields(queries, options)))

    def models(self) -> list[ModelSummary]:
        """All loaded models; raises as `predict`."""
        return ModelList.model_validate_json(self._ask("GET", "/v1/models")).models

    def model(self, name: str) -> ModelDetail:
        """One loaded model, by "name" or "name:version"; raises as `predict`."""
        return ModelDetail.model_validate_json(self._ask("GET", _model_path(name)))

    def ready(self) -> bool:
        """Whether the server answers and is ready, asked once."""
        try:
            return self._http.get("/readyz", timeout=self._retries.total_seconds).is_success
        except httpx.TransportError:
            return False

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, method: str, path: str, fields: Mapping[str, Any] | None = None) -> bytes:
        call = Call(self._retries, fields)
        while True:
            outcome: httpx.Response | httpx.TransportError
            try:
                outcome = self._http.request(method, path, content=call.body(), timeout=call.seconds())
            except httpx.TransportError as error:
                outcome = error
            if isinstance(pause := call.after(outcome), bytes):
                return pause
            time.sleep(pause)


class AsyncClient:
    """The same for an event loop; close it, or use it in an ``async with``.

    Args:
        url: see `Client`.
        api_key: see `Client`.
        retries: see `Client`.
    """

    def __init__(self, url: str, *, api_key: str | None = None, retries: Retries = DEFAULT_RETRIES) -> None:
        self._http = httpx.AsyncClient(base_url=url, headers=_headers(api_key))
        self._retries = retries

    async def predict(self, queries: Sequence[str] | None = None, **options: Unpack[Options]) -> PredictResponse:
        """See `Client.predict`."""
        return PredictResponse.model_validate_json(await self._ask("POST", "/predict", _fields(queries, options)))

    async def models(self) -> list[ModelSummary]:
        """See `Client.models`."""
        return ModelList.model_validate_json(await self._ask("GET", "/v1/models")).models

    async def model(self, name: str) -> ModelDetail:
        """See `Client.model`."""
        return ModelDetail.model_validate_json(await self._ask("GET", _model_path(name)))

    async def ready(self) -> bool:
        """See `Client.ready`."""
        try:
            return (await self._http.get("/readyz", timeout=self._retries.total_seconds)).is_success
        except httpx.TransportError:
            return False

    async def aclose(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _ask(self, method: str, path: str, fields: Mapping[str, Any] | None = None) -> bytes:
        call = Call(self._retries, fields)
        while True:
            outcome: httpx.Response | httpx.TransportError
            try:
                outcome = await self._http.request(method, path, content=call.body(), timeout=call.seconds())
            except httpx.TransportError as error:
                outcome = error
            if isinstance(pause := call.after(outcome), bytes):
                return pause
            await asyncio.sleep(pause)


def _headers(api_key: str | None) -> dict[str, str]:
    headers = {"content-type": "application/json"}
    if api_key is not None:
        headers["authorization"] = f"Bearer {api_key}"
    return headers


def _fields(queries: Sequence[str] | None, options: Options) -> dict[str, Any]:
    """The fields of the body of `POST /predict`."""
    return {**options} if queries is None else {"queries": queries, **options}


def _model_path(name: str) -> str:
    return "/v1/models/" + quote(name, safe=":")
