"""`GET /docs`: the OpenAPI document as one page, without scripts and without anything from elsewhere."""

from __future__ import annotations

import html
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.responses import HTMLResponse

from service.http.pages import inline, page

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h2 { margin-top: 3rem; border-top: 1px solid; padding-top: 1rem; }
pre { background: rgb(127 127 127 / 15%); padding: 1rem; overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
td { vertical-align: top; padding: .2rem 1rem .2rem 0; border-bottom: 1px solid rgb(127 127 127 / 30%); }
:root { color-scheme: light dark; }
"""

Json = Mapping[str, Any]


def add_docs(app: FastAPI) -> None:
    """Give the application its documentation."""

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        """All endpoints."""
        return page(render(app.openapi()), style_src=inline(STYLE))


def render(document: Json) -> str:
    """An OpenAPI document as HTML."""
    info = document["info"]
    title = html.escape(f"{info['title']} {info['version']}")
    parts = [
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>',
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body>',
        f"<h1>{title}</h1><p>{html.escape(info['summary'])}.",
        ' The same for programs: <a href="/openapi.json">/openapi.json</a>.</p>',
    ]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            parts += _operation(document, method.upper(), path, operation)
    return "".join((*parts, "</body></html>"))


def _operation(document: Json, method: str, path: str, operation: Json) -> Iterator[str]:
    yield f"<h2><code>{method} {html.escape(path)}</code></h2><p>{html.escape(operation.get('description', ''))}</p>"
    body = _content(operation.get("requestBody", {}))
    if body is not None:
        yield f"<pre>{html.escape(_command(method, path, body))}</pre>"
        yield _table("Body", list(_fields(document, body)))
    answers = operation["responses"].items()
    for _, answer in answers:
        if (good := _content(answer)) is not None:
            yield _table("Answer", list(_fields(document, good)))
    yield _table("Errors", [(status, answer["description"]) for status, answer in answers if status >= "4"])


def _content(described: Json) -> Json | None:
    """The schema of a body that is JSON."""
    schema: Json | None = described.get("content", {}).get("application/json", {}).get("schema")
    return schema


def _command(method: str, path: str, body: Json) -> str:
    example = json.dumps(next(iter(body.get("examples", ())), {}))
    address = f"http://localhost:8000{path}"
    return f"curl -X {method} {address} -H 'Content-Type: application/json' -d '{example}'"


def _table(title: str, rows: Sequence[tuple[str, ...]]) -> str:
    if not rows:
        return ""
    cells = ("".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in rows)
    return f"<h3>{title}</h3><table>{''.join(f'<tr>{row}</tr>' for row in cells)}</table>"


def _fields(document: Json, schema: Json, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Name, type and meaning of every field, those of objects within objects too."""
    schema = _resolved(document, schema)
    for name, field in schema.get("properties", {}).items():
        place = prefix + name
        text = field.get("description", "")
        if "default" in field and field["default"] is not None:
            text += f" Default: {json.dumps(field['default'])}."
        yield place, _kind(document, field), text.strip()
        yield from _within(document, field, place)


def _within(document: Json, field: Json, place: str) -> Iterator[tuple[str, str, str]]:
    for choice in field.get("anyOf", (field,)):
        resolved = _resolved(document, choice)
        if "items" in resolved:
            yield from _within(document, resolved["items"], f"{place}[]")
        elif "properties" in resolved:
            yield from _fields(document, resolved, f"{place}.")


def _kind(document: Json, schema: Json) -> str:
    """A type in words."""
    if "anyOf" in schema:
        return " or ".join(_kind(document, choice) for choice in schema["anyOf"])
    resolved = _resolved(document, schema)
    if "items" in resolved:
        return f"list of {_kind(document, resolved['items'])}"
    if "enum" in resolved:
        return " or ".join(map(json.dumps, resolved["enum"]))
    return str(resolved.get("type", "anything"))


def _resolved(document: Json, schema: Json) -> Json:
    """A schema, looked up if it is named elsewhere in the document."""
    if "$ref" not in schema:
        return schema
    place: Any = document
    for step in schema["$ref"].removeprefix("#/").split("/"):
        place = place[step]
    found: Json = place
    return found
