"""The endpoints. Requests for labels mostly come by `service.http.protocol`; the route here is for what it leaves."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import PlainTextResponse
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from service.http import documents
from service.http.asgi import read_body, unless_client_leaves
from service.http.exchange import exchange_of
from service.http.health import dead, unready
from service.http.inference import add_inference
from service.http.lifecycle import Lifecycle
from service.http.predict import PREDICT, Predictor, answer
from service.metrics import Metrics
from service.models.registry import Registry
from service.schemas import ModelDetail, ModelList, PredictRequest, PredictResponse
from service.settings import Settings

PROBLEMS = {
    400: "The body is not JSON.",
    401: "The key is missing or not known.",
    403: "The key does not allow this.",
    404: "No such model is loaded.",
    408: "The request's end did not come in time.",
    413: "The body is too large.",
    415: "The body is not declared as JSON.",
    422: "A field is unknown, of the wrong type or out of range.",
    429: "The queue is full, or the key's rate is used up; come back after Retry-After seconds.",
    431: "The head is too large.",
    500: "A bug of the service.",
    503: "Models are loading or the service is shutting down; come back after Retry-After seconds.",
    504: "The request's timeout_ms passed.",
}


def add_routes(
    app: FastAPI, predictor: Predictor, settings: Settings, lifecycle: Lifecycle, metrics: Metrics, registry: Registry
) -> None:
    """Give the application its endpoints."""
    _add_predict(app, predictor, settings)
    _add_models(app, registry)
    _add_health(app, lifecycle, metrics, registry)
    add_inference(app, predictor, settings, lifecycle, registry)


def _add_predict(app: FastAPI, predictor: Predictor, settings: Settings) -> None:
    async def predict(request: Request) -> Response:
        """Best labels for each query."""
        body = await read_body(request.receive, settings.max_body_bytes)
        pending = predictor.ask(exchange_of(request.scope), request.scope["headers"], body)
        await unless_client_leaves(pending.future, request.receive)
        return answer(pending).response()

    app.add_api_route(
        PREDICT,
        predict,
        methods=["POST"],
        response_model=PredictResponse,
        responses={status: documents.problem(text) for status, text in PROBLEMS.items()},
        openapi_extra=documents.body(PredictRequest, oneOf=[_given("queries"), _given("features")]),
    )


def _add_models(app: FastAPI, registry: Registry) -> None:
    @app.get("/v1/models")
    async def list_models() -> ModelList:
        """All loaded models."""
        return ModelList(models=[model.summary(registry.placing(model)) for model in registry.models])

    @app.get("/v1/models/{name}", response_model_exclude_none=True, responses={404: documents.problem(PROBLEMS[404])})
    async def show_model(name: str) -> ModelDetail:
        """One loaded model, by `name:version`, or by `name`: its version with the largest weight."""
        model = registry.main(name)
        return model.detail(registry.placing(model))


def _add_health(app: FastAPI, lifecycle: Lifecycle, metrics: Metrics, registry: Registry) -> None:
    unwell: dict[int | str, dict[str, Any]] = {503: documents.problem("Not so; the document says why.")}
    metrics.watch_readiness(lambda: unready(lifecycle, registry) is None)

    @app.get("/livez", response_class=PlainTextResponse, responses=unwell)
    async def livez() -> str:
        """200 unless only a restart can help."""
        if fault := dead(registry):
            raise fault
        return "ok"

    @app.get("/readyz", response_class=PlainTextResponse, responses=unwell)
    async def readyz() -> str:
        """200 once every model is loaded, warmed up and has answered its golden queries, until a shutdown begins."""
        if fault := unready(lifecycle, registry):
            raise fault
        return "ok"

    @app.get("/metrics", response_class=PlainTextResponse)
    async def expose_metrics() -> Response:
        """All series in Prometheus' text format."""
        return Response(await asyncio.to_thread(metrics.expose), media_type=CONTENT_TYPE_PLAIN_0_0_4)


def _given(field: str) -> dict[str, Any]:
    """One of the two kinds of queries, without the other."""
    return {"required": [field], "properties": {field: {"type": "array"}}}
