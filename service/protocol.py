"""HTTP/1.1 connections that refuse on the head of a request, before uvicorn makes a task of it.

Under overload most requests are refused, and what refusing them costs is missing for the others. The gate decides and
words the refusal; here it is only written, in about a third of the time that the way through the application takes.
"""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import Response
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from service.middleware import PREDICT, Gate

_TARGET = PREDICT.encode()


class _Refused:
    """Stands for the request in place of uvicorn's cycle: it is answered, and its body is of no interest."""

    response_complete = True

    def __init__(self) -> None:
        self.message_event = asyncio.Event()  # set, in vain, when the connection ends


class RefusingProtocol(HttpToolsProtocol):
    """uvicorn's protocol in front of a `Gate`."""

    def on_headers_complete(self) -> None:
        """Answer the request now if the gate refuses it; otherwise do what uvicorn does."""
        refusal = self._refusal()
        if refusal is None:
            super().on_headers_complete()
            return
        self.cycle: Any = _Refused()
        self.transport.write(self._head(refusal) + bytes(refusal.body))
        if not self.parser.should_keep_alive() or refusal.headers.get("connection") == "close":
            self.transport.close()
        self.on_response_complete()

    def _refusal(self) -> Response | None:
        is_first = self.cycle is None or self.cycle.response_complete
        if self.url != _TARGET or not is_first or not isinstance(self.app, Gate):
            return None
        return self.app.refuse_on_head(self.headers)

    def _head(self, response: Response) -> bytes:
        lines = [b"%b: %b\r\n" % header for header in (*self.server_state.default_headers, *response.raw_headers)]
        return STATUS_LINE[response.status_code] + b"".join(lines) + b"\r\n"
