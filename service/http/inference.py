"""The Open Inference Protocol v2 over HTTP, with Triton's raw tensors: the same queue and rules as `POST /predict`."""

from __future__ import annotations

from fastapi import FastAPI, Request, Response

from service.errors import MalformedBody
from service.http import documents
from service.http.asgi import Headers, header, read_body, unless_client_leaves
from service.http.encoding import plain_body
from service.http.exchange import exchange_of
from service.http.health import dead, model_unready, unready
from service.http.lifecycle import Lifecycle
from service.http.predict import Predictor, settle
from service.http.problems import INFERENCE
from service.http.reply import Reply
from service.inference.answers import tensors_of, width
from service.inference.metadata import full_name, model_metadata, server_metadata
from service.inference.questions import question, wanted_outputs
from service.inference.schemas import (
    EXAMPLE,
    InferError,
    InferRequest,
    InferResponse,
    ModelMetadata,
    ModelReady,
    ServerLive,
    ServerMetadata,
    ServerReady,
    encode_infer,
    parse_infer,
)
from service.models.registry import Registry
from service.settings import Settings

MODEL = f"{INFERENCE}/models/{{name}}"
VERSION = f"{MODEL}/versions/{{version}}"

ERRORS = {
    400: "The body is not JSON, or a header is not a number.",
    401: "The key is missing or not known.",
    403: "The key does not allow this.",
    404: "No such model is loaded.",
    413: "The body is too large.",
    415: "The body is compressed in a way that is not known.",
    422: "A tensor or a parameter is unknown, of the wrong type or shape, or out of range.",
    429: "The queue is full, or the key's rate is used up; come back after Retry-After seconds.",
    500: "A bug of the service.",
    503: "Models are loading or the service is shutting down; come back after Retry-After seconds.",
    504: "The deadline passed.",
}
INFER_ERRORS = tuple(ERRORS)

_JSON_LENGTH = b"inference-header-content-length"


def add_inference(
    app: FastAPI, predictor: Predictor, settings: Settings, lifecycle: Lifecycle, registry: Registry
) -> None:
    """Give the application the endpoints of the protocol."""
    _add_server(app, lifecycle, registry)
    _add_models(app, lifecycle, registry)
    _add_infer(app, predictor, settings, lifecycle, registry)


def _add_server(app: FastAPI, lifecycle: Lifecycle, registry: Registry) -> None:
    @app.get(INFERENCE)
    async def show_server() -> ServerMetadata:
        """Name, version and extensions."""
        return server_metadata()

    @app.get(f"{INFERENCE}/health/live")
    async def server_live() -> ServerLive:
        """As `/livez`."""
        if fault := dead(registry):
            raise fault
        return ServerLive(live=True)

    @app.get(f"{INFERENCE}/health/ready")
    async def server_ready() -> ServerReady:
        """As `/readyz`."""
        if fault := unready(lifecycle, registry):
            raise fault
        return ServerReady(ready=True)


def _add_models(app: FastAPI, lifecycle: Lifecycle, registry: Registry) -> None:
    def describe(wanted: str) -> ModelMetadata:
        if refusal := lifecycle.refusal():
            raise refusal
        return model_metadata(registry.main(wanted), registry)

    def tell_ready(name: str, wanted: str) -> ModelReady:
        if fault := model_unready(wanted, lifecycle, registry):
            raise fault
        return ModelReady(name=name, ready=True)

    responses = _errors(404, 422, 503)

    @app.get(MODEL, responses=responses)
    async def describe_model(name: str) -> ModelMetadata:
        """Inputs and outputs of a model, and the versions of it that are loaded."""
        return describe(name)

    @app.get(VERSION, responses=responses)
    async def describe_version(name: str, version: str) -> ModelMetadata:
        """The same of one version."""
        return describe(full_name(name, version))

    @app.get(f"{MODEL}/ready", responses=responses)
    async def model_ready(name: str) -> ModelReady:
        """200 when the model answers."""
        return tell_ready(name, name)

    @app.get(f"{VERSION}/ready", responses=responses)
    async def version_ready(name: str, version: str) -> ModelReady:
        """200 when this version answers."""
        return tell_ready(name, full_name(name, version))


def _add_infer(
    app: FastAPI, predictor: Predictor, settings: Settings, lifecycle: Lifecycle, registry: Registry
) -> None:
    async def infer(request: Request, wanted: str) -> Response:
        if refusal := lifecycle.refusal():
            raise refusal
        headers = request.scope["headers"]
        body = await read_body(request.receive, settings.max_body_bytes)
        asked, tensors = parse_infer(plain_body(headers, body, settings.max_body_bytes), _json_length(headers))
        model = registry.get(wanted)
        outputs = wanted_outputs(model, asked.output_names)
        query = question(model, tensors, asked.parameters, settings)
        pending = predictor.submit(exchange_of(request.scope), query)
        await unless_client_leaves(pending.future, request.receive)
        predictions, timing = settle(pending)
        answers = tensors_of(outputs, predictions, width(model, query))
        return _reply(*encode_infer(asked, model, answers), (b"server-timing", timing)).response()

    described = documents.body(InferRequest, example=EXAMPLE)
    answered = documents.answer("Labels and their scores.", InferResponse)
    answered["content"]["application/octet-stream"] = {}  # raw tensors behind the JSON
    responses = {200: answered, **_errors(*INFER_ERRORS)}

    @app.post(f"{MODEL}/infer", responses=responses, openapi_extra=described)
    async def infer_model(name: str, request: Request) -> Response:
        """Best labels for each row of the inputs."""
        return await infer(request, name)

    @app.post(f"{VERSION}/infer", responses=responses, openapi_extra=described)
    async def infer_version(name: str, version: str, request: Request) -> Response:
        """The same from one version."""
        return await infer(request, full_name(name, version))


def _errors(*statuses: int) -> documents.Responses:
    return {status: documents.answer(ERRORS[status], InferError) for status in statuses}


def _json_length(headers: Headers) -> int | None:
    """How much of the body is JSON, when it is not all.

    Raises:
        MalformedBody: the header that says it is not a number.
    """
    written = header(headers, _JSON_LENGTH)
    if written is None:
        return None
    if not written.isdigit() or len(written) > 18:
        raise MalformedBody(f"expected a number in Inference-Header-Content-Length, found {written.decode('latin-1')}")
    return int(written)


def _reply(body: bytes, json_bytes: int | None, timing: tuple[bytes, bytes]) -> Reply:
    if json_bytes is None:
        return Reply.of(200, body, b"application/json", timing)
    return Reply.of(200, body, b"application/octet-stream", timing, (_JSON_LENGTH, b"%d" % json_bytes))
