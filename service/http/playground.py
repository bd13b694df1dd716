"""The playground: a page, its style and its scripts, which lie in `service/web` and are sent as they are."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import PurePath

from fastapi import FastAPI, HTTPException, Request, Response

from service.http.pages import page_headers

# The page's own files, and nothing else, lie below it.
WEB = "/web/"

_PAGE = "index.html"
_MEDIA_TYPES = {".css": "text/css", ".html": "text/html", ".js": "text/javascript"}
_HEADERS = page_headers(script_src="'self'", style_src="'self'", connect_src="'self'", img_src="'self' data:")


@dataclass(frozen=True)
class Asset:
    """One file of the page.

    Attributes:
        body: its bytes.
        media_type: of the body.
        headers: an ETag, which changes with the body, and what browsers are told about pages.
    """

    body: bytes
    media_type: str
    headers: dict[str, str]

    @classmethod
    def read(cls, file: Traversable) -> Asset:
        """The asset that a file is."""
        body = file.read_bytes()
        # Scripts belong to the page and the service they came with: who kept them asks whether they still do.
        kept = {"etag": f'"{hashlib.sha256(body).hexdigest()}"', "cache-control": "no-cache"}
        return cls(body, _MEDIA_TYPES[PurePath(file.name).suffix], kept | _HEADERS)

    def answer(self, request: Request) -> Response:
        """The file, or 304 where the client has it; uvicorn leaves the body out of answers to HEAD."""
        # A proxy that compresses the file marks its tag as weak.
        had = (tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(","))
        if self.headers["etag"] in had:
            return Response(status_code=304, headers=self.headers)
        return Response(self.body, headers=self.headers, media_type=self.media_type)


def add_playground(app: FastAPI) -> None:
    """Give the application its page; the files are read now, and a path is looked up among their names alone."""
    assets = {file.name: Asset.read(file) for file in (files("service") / "web").iterdir()}

    async def page(request: Request) -> Response:
        return assets[_PAGE].answer(request)

    async def asset(request: Request, name: str) -> Response:
        if name not in assets:
            raise HTTPException(404)
        return assets[name].answer(request)

    for path, endpoint in (("/", page), (WEB + "{name}", asset)):
        app.add_api_route(path, endpoint, methods=["GET", "HEAD"], include_in_schema=False)
