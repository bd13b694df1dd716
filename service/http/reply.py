"""A whole answer as plain data, so that it can be written as ASGI messages or straight to a connection."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import Response

from service.http.asgi import Send


@dataclass(slots=True)
class Reply:
    """A status, headers and a body.

    Attributes:
        status: HTTP status.
        headers: names in lower case and values, Content-Type and Content-Length among them.
        body: all of it.
    """

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes

    @classmethod
    def of(cls, status: int, body: bytes, media_type: bytes, *headers: tuple[bytes, bytes]) -> Reply:
        """A reply whose Content-Type and Content-Length are filled in."""
        described = [(b"content-type", media_type), (b"content-length", b"%d" % len(body)), *headers]
        return cls(status, described, body)

    async def send(self, send: Send) -> None:
        """Write it as ASGI messages."""
        await send({"type": "http.response.start", "status": self.status, "headers": self.headers})
        await send({"type": "http.response.body", "body": self.body})

    def response(self) -> Response:
        """The same as FastAPI's routes and handlers return it."""
        response = Response(self.body, self.status)
        response.raw_headers = self.headers
        return response
