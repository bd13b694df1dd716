from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from html.parser import HTMLParser

import pytest

from service.http.docs import render
from service.http.pages import inline, page
from service.schemas import PredictRequest
from tests.service.serving import Service, make_service

LOADING = {"script", "link", "img", "iframe", "object", "embed", "base", "form"}


class Page(HTMLParser):
    """What a page consists of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.addresses: set[str] = set()
        self.styles: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.addresses |= {value or "" for name, value in attrs if name in ("href", "src")}
        assert not {name for name, _ in attrs} & {"style", "onclick", "onload"}
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "style":
            self.styles.append(data)


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    service = make_service(())
    with service.client:
        yield service


def test_the_page_describes_every_endpoint_and_field(service: Service) -> None:
    text = service.client.get("/docs").text
    for path, operations in service.client.get("/openapi.json").json()["paths"].items():
        for method in operations:
            assert f"<code>{method.upper()} {path}</code>" in text
    for field in (*PredictRequest.model_fields, "features[].indices", "predictions[].labels[].score"):
        assert f"<td>{field}</td>" in text
    assert "<td>list of string or null</td>" in text
    assert "Default: 5." in text
    assert "curl -X POST http://localhost:8000/predict" in text


def test_the_page_loads_and_runs_nothing_and_its_headers_say_so(service: Service) -> None:
    response = service.client.get("/docs")
    found = Page(response.text)
    assert found.open == []
    assert not found.tags & LOADING
    assert found.addresses == {"/openapi.json"}
    digests = {base64.b64encode(hashlib.sha256(style.encode()).digest()).decode() for style in found.styles}
    policy = dict(part.split(" ", 1) for part in response.headers["content-security-policy"].split("; "))
    assert policy.pop("style-src") == " ".join(f"'sha256-{digest}'" for digest in digests)
    assert policy == dict.fromkeys(("default-src", "base-uri", "form-action", "frame-ancestors"), "'none'")
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["referrer-policy"] == "no-referrer"


def test_texts_of_the_document_are_texts_on_the_page() -> None:
    script = "<script>alert(1)</script>"
    operation = {"description": script, "responses": {"400": {"description": script}}}
    info = {"title": script, "version": script, "summary": script}
    assert "<script" not in render({"info": info, "paths": {f"/{script}": {"get": operation}}})


def test_a_page_may_load_what_it_names() -> None:
    response = page("", script_src=inline("1"), connect_src="'self'", form_action="'self'")
    policy = response.headers["content-security-policy"]
    assert re.search(r"script-src 'sha256-[A-Za-z0-9+/]{43}='; connect-src 'self'", policy)
    assert "form-action 'self'" in policy
    assert policy.startswith("default-src 'none'")


def test_the_document_says_where_a_key_is_needed(service: Service) -> None:
    document = service.client.get("/openapi.json").json()
    schemes = document["components"]["securitySchemes"]
    assert schemes["key"] == {"type": "apiKey", "in": "header", "name": "X-API-Key"}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            without_a_key = [] if path.startswith("/admin") else [set()]
            assert [set(way) for way in operation["security"]] == [{"key"}, {"bearer"}, *without_a_key]
