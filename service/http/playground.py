"""The playground: a page, its style and its scripts, which lie in `service/web` and are sent as they are.

The page takes nothing from elsewhere, and its headers hold the browser to that: a text that a label or a client brings
along cannot become a script, and no other site can put the page into a frame.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import PurePath

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from service.http.asgi import Headers, header
from service.http.reply import Reply

# The page's own files, and nothing else, lie below it.
WEB = "/web/"

# What the browser lets a page of ours do: only what its own files and the service's answers need.
CONTENT_SECURITY_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SECURITY_HEADERS = (
    (b"content-security-policy", CONTENT_SECURITY_POLICY),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)

_PAGE = "index.html"
_MEDIA_TYPES = {
    ".css": b"text/css; charset=utf-8",
    ".html": b"text/html; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
}


@dataclass(frozen=True)
class Asset:
    """One file of the page.

    Attributes:
        body: its bytes.
        media_type: value of Content-Type.
        etag: changes with the body.
    """

    body: bytes
    media_type: bytes
    etag: bytes

    @classmethod
    def read(cls, file: Traversable) -> Asset:
        """The asset that a file is."""
        body = file.read_bytes()
        return cls(body, _MEDIA_TYPES[PurePath(file.name).suffix], b'"%b"' % hashlib.sha256(body).hexdigest().encode())

    def reply(self, headers: Headers) -> Reply:
        """The file, or 304 where the client has it; uvicorn leaves the body out of answers to HEAD."""
        # Scripts fit the page and the service they came with: a browser may keep them, but asks whether they still do.
        described = [(b"etag", self.etag), (b"cache-control", b"no-cache"), *SECURITY_HEADERS]
        if _names(header(headers, b"if-none-match"), self.etag):
            return Reply(304, described, b"")
        return Reply.of(200, self.body, self.media_type, *described)


def add_playground(app: FastAPI) -> None:
    """Give the application its page; the files are read now, and a path is looked up among their names alone."""
    assets = {file.name: Asset.read(file) for file in (files("service") / "web").iterdir()}

    async def page(request: Request) -> Response:
        return assets[_PAGE].reply(request.scope["headers"]).response()

    async def asset(request: Request, name: str) -> Response:
        if name not in assets:
            raise HTTPException(404)
        return assets[name].reply(request.scope["headers"]).response()

    for path, endpoint in (("/", page), (WEB + "{name}", asset)):
        app.add_api_route(path, endpoint, methods=["GET", "HEAD"], include_in_schema=False)


def _names(if_none_match: bytes | None, etag: bytes) -> bool:
    """Whether a client has the file of this tag; a proxy that compressed it marks the tag as weak."""
    tags = (if_none_match or b"").split(b",")
    return any(tag.strip().removeprefix(b"W/") == etag for tag in tags)
