"""JSON bodies as models, and what is wrong with them in a sentence that names the field."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from service.errors import InvalidRequest, MalformedBody

SHOWN_FAULTS = 3
LONGEST_SHOWN = 40

Body = TypeVar("Body", bound=BaseModel)


def parse(kind: type[Body], body: bytes) -> Body:
    """Read a body.

    Raises:
        MalformedBody: it is not JSON.
        InvalidRequest: it is JSON of the wrong shape, or a value is out of range; the sentence names the field.
    """
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise _explained(kind, error) from None


def _explained(kind: type[BaseModel], error: ValidationError) -> MalformedBody | InvalidRequest:
    """Pydantic's finding in a sentence."""
    faults = error.errors(include_url=False, include_context=False)
    if faults[0]["type"] == "json_invalid":
        return MalformedBody(f"the body is not JSON: {faults[0]['msg'].removeprefix('Invalid JSON: ')}")
    shown = [_sentence(kind, fault) for fault in faults[:SHOWN_FAULTS]]
    if len(faults) > SHOWN_FAULTS:
        shown.append(f"and {len(faults) - SHOWN_FAULTS} more")
    return InvalidRequest("; ".join(shown))


def _sentence(kind: type[BaseModel], fault: Mapping[str, Any]) -> str:
    path = _path(fault["loc"])
    if fault["type"] == "extra_forbidden":
        known = _model_at(kind, fault["loc"][:-1]).model_fields
        return f"{path}: this field is unknown; known are {', '.join(known)}"
    message = fault["msg"].removeprefix("Value error, ")
    sentence = f"{path}: {message[:1].lower()}{message[1:]}"
    if fault["type"] in ("value_error", "missing"):
        return sentence
    return f"{sentence}, found {_shown(fault['input'])}"


def _model_at(kind: type[BaseModel], location: Sequence[int | str]) -> type[BaseModel]:
    """The model of the object at a place in the body."""
    for part in location:
        if isinstance(part, str) and part in kind.model_fields:
            kind = _model_within(kind.model_fields[part].annotation) or kind
    return kind


def _model_within(annotation: Any) -> type[BaseModel] | None:
    """The first model that a type is made of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for part in get_args(annotation) if (model := _model_within(part))), None)


def _path(location: Sequence[int | str]) -> str:
    """A place in the body as a programmer writes it: ``features[2].indices[0]``."""
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}"
    return path.removeprefix(".") or "the body"


def _shown(value: object) -> str:
    """A value from the body as short JSON; lists and objects by their kind only."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    text = json.dumps(value)
    return text if len(text) <= LONGEST_SHOWN else text[:LONGEST_SHOWN] + "…"
