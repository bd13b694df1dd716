"""JSON bodies as models, and what is wrong with them in a sentence that names the field."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from service.errors import InvalidRequest, MalformedBody, shown

SHOWN_FAULTS = 3

_NAME_END = re.compile(rb'"[ \t\r\n]*:')

Body = TypeVar("Body", bound=BaseModel)


def parse(kind: type[Body], body: bytes) -> Body:
    """Read a body.

    Raises:
        MalformedBody: it is not JSON.
        InvalidRequest: it is JSON of the wrong shape, a value is out of range, or a field is there twice; the sentence
            names the field.
    """
    try:
        parsed = kind.model_validate_json(body)
    except ValidationError as error:
        raise _explained(kind, error) from None
    if not _has_each_field_once(parsed, body):
        _refuse_repeated_fields(body)
    return parsed


def checked(kind: type[Body], fields: Mapping[str, object]) -> Body:
    """A model of fields that came in another shape than JSON.

    Raises:
        InvalidRequest: a field is unknown, of the wrong type or out of range; the sentence names it.
    """
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        raise _explained(kind, error) from None


def _has_each_field_once(parsed: BaseModel, body: bytes) -> bool:
    """Whether no field can be there twice, found out for less than another parse; False when in doubt.

    Each field brings a colon behind a quotation mark. Texts may hold such, too, but seldom do.
    """
    fields = len(parsed.model_fields_set)
    if body.count(b":") == fields:
        return True
    names = len(_NAME_END.findall(body))
    return names == fields or names == _fields_within(parsed)


def _fields_within(value: object) -> int:
    """The fields that were given, of a model and of the models in it."""
    if isinstance(value, BaseModel):
        return sum(1 + _fields_within(getattr(value, name)) for name in value.model_fields_set)
    if isinstance(value, list) and value and isinstance(value[0], BaseModel):
        return sum(map(_fields_within, value))
    return 0


def _refuse_repeated_fields(body: bytes) -> None:
    """Look for a field that an object has twice: parsers take the last, but what came to be asked may be another."""

    def check(fields: list[tuple[str, Any]]) -> None:
        names = [name for name, _ in fields]
        if len(set(names)) < len(names):
            repeated = next(name for name in names if names.count(name) > 1)
            raise InvalidRequest(f"{repeated}: expected this field once, found it twice")

    json.loads(body, object_pairs_hook=check)


def _explained(kind: type[BaseModel], error: ValidationError) -> MalformedBody | InvalidRequest:
    """Pydantic's finding in a sentence."""
    faults = error.errors(include_url=False, include_context=False)
    if faults[0]["type"] == "json_invalid":
        return MalformedBody(f"the body is not JSON: {faults[0]['msg'].removeprefix('Invalid JSON: ')}")
    told = [_sentence(kind, fault) for fault in faults[:SHOWN_FAULTS]]
    if len(faults) > SHOWN_FAULTS:
        told.append(f"and {len(faults) - SHOWN_FAULTS} more")
    return InvalidRequest("; ".join(told))


def _sentence(kind: type[BaseModel], fault: Mapping[str, Any]) -> str:
    path = _path(fault["loc"])
    if fault["type"] == "extra_forbidden":
        known = _model_at(kind, fault["loc"][:-1]).model_fields
        return f"{path}: this field is unknown; known are {', '.join(known)}"
    message = fault["msg"].removeprefix("Value error, ")
    sentence = f"{path}: {message[:1].lower()}{message[1:]}"
    if fault["type"] in ("value_error", "missing"):
        return sentence
    return f"{sentence}, found {shown(fault['input'])}"


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
