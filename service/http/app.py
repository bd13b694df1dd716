"""The application: routes, the gate around them, and models that load in the background."""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from importlib.metadata import version

from fastapi import FastAPI, Request, Response
from fastapi.routing import APIRoute

from service.errors import BundleError, RequestError, without_folders
from service.http.admin import add_admin_routes
from service.http.asgi import ClientLeft
from service.http.docs import add_docs
from service.http.documents import describe_keys
from service.http.exchange import exchange_of
from service.http.lifecycle import Lifecycle
from service.http.middleware import Gate
from service.http.playground import add_playground
from service.http.problems import error_reply, internal_error_reply, reply_in_style
from service.http.routes import add_routes
from service.live.keeper import LabelKeeper
from service.metrics import Metrics
from service.models.launch import Launched
from service.models.loading import Launch, Loader, open_all
from service.models.registry import Registry
from service.settings import Settings
from service.telemetry.telemetry import Telemetry

logger = logging.getLogger(__name__)

LAG_PROBE_SECONDS = 0.25


def create_app(
    settings: Settings, lifecycle: Lifecycle, metrics: Metrics, workers: Sequence[Launched], launch: Launch
) -> Gate:
    """Build the application; nothing is loaded or started before its lifespan begins.

    Args:
        settings: of the process.
        lifecycle: of the process; the application moves it from loading to serving or to a failure.
        metrics: all series.
        workers: one for each model, which load while all this is built.
        launch: starts another one.
    """
    registry = Registry(metrics)
    keeper = LabelKeeper(registry, metrics, settings.labels_dir)
    loader = Loader(settings, registry, keeper, metrics, launch)
    telemetry = Telemetry(settings, metrics)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        telemetry.start()
        loading = asyncio.create_task(_load(settings, registry, keeper, lifecycle, metrics, workers))
        probe = asyncio.create_task(_probe_lag(metrics))
        async with _answering_grpc(gate, settings, lifecycle, registry):
            yield
        probe.cancel()
        loading.cancel()
        await asyncio.gather(loading, loader.close(), keeper.close(), return_exceptions=True)
        await registry.close()
        await telemetry.close()

    app = FastAPI(
        title="xmcserve",
        summary="Best labels out of very many, for texts or sparse features",
        version=version("xmcserve"),
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    _add_error_handlers(app)
    # Around the framework rather than among its middleware: a refusal must cost as little as possible.
    gate = Gate(app, settings=settings, lifecycle=lifecycle, metrics=metrics, registry=registry, telemetry=telemetry)
    add_routes(app, gate.predictor, settings, lifecycle, metrics, registry)
    add_docs(app)
    add_admin_routes(app, settings, lifecycle, registry, loader, keeper)
    add_playground(app)
    describe_keys(app)
    return gate


@asynccontextmanager
async def _answering_grpc(
    gate: Gate, settings: Settings, lifecycle: Lifecycle, registry: Registry
) -> AsyncIterator[None]:
    """Answer gRPC too, where it has a port; if it cannot be had, leave the sentence for the server."""
    if settings.grpc_port is None:
        yield
        return
    from service.rpc.server import RpcServer  # the extra may not be installed

    server = RpcServer(gate, settings, lifecycle, registry)
    try:
        await server.start()
    except OSError as error:
        lifecycle.failure = f"cannot listen for gRPC on {settings.host}:{settings.grpc_port}: {error}"
        logger.critical("%s", lifecycle.failure)
    yield
    await server.stop()


async def _load(
    settings: Settings,
    registry: Registry,
    keeper: LabelKeeper,
    lifecycle: Lifecycle,
    metrics: Metrics,
    workers: Sequence[Launched],
) -> None:
    """Put the first models in; on failure leave the sentence for the server, which ends the process."""
    try:
        models = await open_all(workers, metrics)
        try:
            async with keeper.joining(*models):
                registry.start(models)
        except BundleError:
            await asyncio.gather(*(model.close() for model in models))
            raise
    except BundleError as error:
        logger.critical("%s", error)
        lifecycle.failure = without_folders(str(error), (*settings.bundles, *settings.bundle_keys))
    except Exception as error:
        logger.critical("loading failed", exc_info=error)
        lifecycle.failure = "loading failed unexpectedly; the log has the cause"
    else:
        # What is alive now stays alive. Without this every full collection walks it all, and all clients wait.
        gc.collect()
        gc.freeze()
        lifecycle.loaded()
        logger.info("ready")


async def _probe_lag(metrics: Metrics) -> None:
    """Observe for ever how late the event loop runs a timer."""
    while True:
        due = time.monotonic() + LAG_PROBE_SECONDS
        await asyncio.sleep(LAG_PROBE_SECONDS)
        metrics.observe_event_loop_lag(max(0.0, time.monotonic() - due))


def _add_error_handlers(app: FastAPI) -> None:
    """Turn every error into a problem document."""

    @app.exception_handler(RequestError)
    async def refused(request: Request, error: RequestError) -> Response:
        exchange = exchange_of(request.scope)
        exchange.error = error
        return error_reply(error, exchange.request_id, request.url.path).response()

    @app.exception_handler(ClientLeft)
    async def client_left(_: Request, __: ClientLeft) -> Response:
        return Response(status_code=ClientLeft.status)

    @app.exception_handler(HTTPStatus.NOT_FOUND)
    async def no_such_path(request: Request, _: Exception) -> Response:
        detail = f"there is no {request.url.path} here; /docs lists what there is"
        request_id = exchange_of(request.scope).request_id
        return reply_in_style(request.url.path, 404, "Not found", detail, request_id).response()

    @app.exception_handler(HTTPStatus.METHOD_NOT_ALLOWED)
    async def no_such_method(request: Request, _: Exception) -> Response:
        # Of all routes of the path: the framework tells only those of the first.
        routes = [
            route for route in app.routes if isinstance(route, APIRoute) and route.path_regex.match(request.url.path)
        ]
        allowed = ", ".join(sorted({method for route in routes for method in route.methods or ()}))
        detail = f"{request.url.path} does not answer {request.method}, only {allowed}"
        request_id = exchange_of(request.scope).request_id
        header = (b"allow", allowed.encode())
        return reply_in_style(request.url.path, 405, "Method not allowed", detail, request_id, header).response()

    @app.exception_handler(Exception)
    async def our_bug(request: Request, _: Exception) -> Response:
        return internal_error_reply(exchange_of(request.scope).request_id, request.url.path).response()
