"""`/admin`: what is loaded, and who answers, changed while the service runs. All of it needs an admin key."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request, Response

from service.admin_schemas import (
    FOLLOWING,
    WEIGHED,
    LabelCounts,
    LabelState,
    LoadList,
    LoadRequest,
    LoadStatus,
    PlacingRequest,
    Retired,
)
from service.errors import BundleRefused, InvalidRequest
from service.http import documents
from service.http.asgi import read_body
from service.http.lifecycle import Lifecycle
from service.http.predict import require_json
from service.live.changes import LabelChange
from service.live.keeper import LabelKeeper
from service.models.loading import Loader, State
from service.models.registry import Registry
from service.parsing import parse
from service.schemas import ModelSummary
from service.settings import Settings

LOADS = "/admin/loads/{load}"
FOLLOW_LOAD: dict[str, Any] = {"operationId": "show_load", "parameters": {"load": "$response.body#/load"}}

PROBLEMS = {
    400: "The body is not JSON.",
    401: "The key is missing or not known.",
    403: "The key is no admin key, or there are none.",
    404: "There is no such bundle, load or model.",
    409: "Nobody would answer for a model, no folder is set to load from, or a label cannot be added or removed.",
    413: "The body is too large.",
    415: "The body is not declared as JSON.",
    422: "A field is wrong; or, where the answer was waited for, the bundle cannot be served.",
    503: "The first models are loading, or the service is shutting down; come back after Retry-After seconds.",
    507: "The change could not be written to the journal, so nothing has changed.",
}


def add_admin_routes(
    app: FastAPI,
    settings: Settings,
    lifecycle: Lifecycle,
    registry: Registry,
    loader: Loader,
    keeper: LabelKeeper,
) -> None:
    """Give the application the endpoints under `/admin`."""
    problems: documents.Responses = {status: documents.problem(text) for status, text in PROBLEMS.items()}

    # Of the same kind, and said twice: a load that was waited for is 200.
    accepted: documents.Responses = {200: {"model": LoadStatus}, 202: {"links": {"load": FOLLOW_LOAD}}}

    @app.post(
        "/admin/models", status_code=202, responses={**accepted, **problems}, openapi_extra=documents.body(LoadRequest)
    )
    async def load_model(request: Request, response: Response) -> LoadStatus:
        """Load a bundle in the background, then let it answer; see `GET /admin/loads/{load}`."""
        asked = parse(LoadRequest, await _read(request))
        load = loader.begin(asked.bundle, asked.placing)
        response.headers["location"] = LOADS.format(load=load.number)
        if asked.wait:
            await loader.wait(load)
            if load.state is State.FAILED:
                raise BundleRefused(load.reason or "")
            response.status_code = 200
        return LoadStatus.of(load)

    @app.get("/admin/loads")
    async def list_loads() -> LoadList:
        """All loads since the start, the oldest forgotten."""
        return LoadList(loads=[LoadStatus.of(load) for load in loader.loads.values()])

    @app.get(LOADS, operation_id=FOLLOW_LOAD["operationId"], responses={404: problems[404]})
    async def show_load(load: str) -> LoadStatus:
        """One load."""
        return LoadStatus.of(loader.get(int(load) if load.isascii() and load.isdigit() else 0))

    @app.patch(
        "/admin/models/{name}",
        responses=problems,
        openapi_extra=documents.body(PlacingRequest, oneOf=[WEIGHED, FOLLOWING]),
    )
    async def place_model(name: str, request: Request) -> ModelSummary:
        """Change what a version answers, `name:version`, or `name` where one version is loaded."""
        placing = parse(PlacingRequest, await _read(request)).placing
        if placing is None:
            raise InvalidRequest("expected weight or shadow, found neither")
        model = registry.place(name, placing)
        return model.summary(placing)

    @app.delete("/admin/models/{name}", responses={404: problems[404], 409: problems[409]})
    async def retire_model(name: str) -> Retired:
        """Let all versions of a model go, or one: `name:version`."""
        return Retired(retired=[model.identity for model in registry.retire(name)])

    @app.get("/admin/models/{name}/labels", responses={404: problems[404], 422: problems[422]})
    async def show_labels(name: str) -> LabelState:
        """What was changed of a model's labels while it is served."""
        return LabelState.of(*keeper.changes(name))

    @app.post("/admin/models/{name}/labels", responses=problems, openapi_extra=documents.body(LabelChange))
    async def change_labels(name: str, request: Request) -> LabelCounts:
        """Disable, enable, add or remove labels of all versions of a model, together or not at all."""
        change = parse(LabelChange, await _read(request))
        if change.is_empty:
            raise InvalidRequest("expected labels to disable, enable, add or remove, found none")
        return LabelCounts.of(await keeper.change(name, change))

    async def _read(request: Request) -> bytes:
        if refusal := lifecycle.refusal():
            raise refusal
        require_json(request.scope["headers"])
        return await read_body(request.receive, settings.max_body_bytes)
