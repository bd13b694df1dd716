"""What the OpenAPI document says of bodies and answers that no framework reads or writes."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from service.http.doorkeeper import ADMIN
from service.http.problems import MEDIA_TYPE
from service.schemas import Problem

KEYS = {
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "bearer": {"type": "http", "scheme": "bearer"},
}

Responses = dict[int | str, dict[str, Any]]


def problem(text: str) -> dict[str, Any]:
    """An answer that is a problem document."""
    return _answer(text, MEDIA_TYPE, Problem)


def answer(text: str, kind: type[BaseModel]) -> dict[str, Any]:
    """An answer that is JSON."""
    return _answer(text, "application/json", kind)


def body(kind: type[BaseModel], **additional: Any) -> dict[str, Any]:
    """A body that is JSON.

    Args:
        kind: what it is parsed to.
        additional: what a JSON schema says beyond that.
    """
    content = {"application/json": {"schema": _whole(kind) | additional}}
    return {"requestBody": {"required": True, "content": content}}


def describe_keys(app: FastAPI) -> None:
    """Say in the document how a key is sent, which `Doorkeeper` reads: `/admin` needs one, other paths may."""
    describe = app.openapi

    def described() -> dict[str, Any]:
        document = describe()
        document["components"]["securitySchemes"] = KEYS
        for path, operations in document["paths"].items():
            for operation in operations.values():
                operation["security"] = [{name: []} for name in KEYS]
                if not path.startswith(ADMIN):
                    operation["security"].append({})
        return document

    app.openapi = described  # type: ignore[method-assign]


def _answer(text: str, media_type: str, kind: type[BaseModel]) -> dict[str, Any]:
    return {"description": text, "content": {media_type: {"schema": _whole(kind)}}}


def _whole(kind: type[BaseModel]) -> dict[str, Any]:
    """The JSON schema of a model with those of its parts in their places: references would lead out of the document."""
    schema = kind.model_json_schema()
    parts = schema.pop("$defs", {})

    def filled(value: Any) -> Any:
        if isinstance(value, list):
            return [filled(item) for item in value]
        if not isinstance(value, dict):
            return value
        if "$ref" in value:
            return filled(parts[value["$ref"].rpartition("/")[2]])
        return {name: filled(item) for name, item in value.items()}

    whole: dict[str, Any] = filled(schema)
    return whole
