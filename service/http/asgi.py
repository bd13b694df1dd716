"""The few words of ASGI that the service speaks below FastAPI."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from service.errors import BodyTooLarge

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = Iterable[tuple[bytes, bytes]]


class ClientLeft(Exception):
    """The client closed the connection before its answer was there.

    Attributes:
        status: for the metrics; nobody is there to read it.
    """

    status = 499


def header(headers: Headers, name: bytes) -> bytes | None:
    """The first header of a name, which is given in lower case, or None."""
    for key, value in headers:
        if key == name:
            return value
    return None


async def read_body(receive: Receive, limit_bytes: int) -> bytes:
    """The whole body of a request, however it is cut into pieces.

    Raises:
        BodyTooLarge: it has more bytes than the limit; what came so far is forgotten at once.
        ClientLeft: the client left before the end.
    """
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientLeft
        part: bytes = message.get("body", b"")
        size += len(part)
        if size > limit_bytes:
            raise too_large(limit_bytes)
        parts.append(part)
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)


async def unless_client_leaves(future: asyncio.Future[Any], receive: Receive) -> None:
    """Wait for the answers to a request whose body is read; a client that leaves takes its queries out of the queue.

    Raises:
        ClientLeft: the client left first.
    """
    # The body is complete, so the only message that can still come is the end of the connection.
    watcher = asyncio.ensure_future(receive())
    watcher.add_done_callback(lambda _: future.cancel())
    try:
        await future
    except asyncio.CancelledError:
        if watcher.done():
            raise ClientLeft from None
        raise
    finally:
        watcher.cancel()


def too_large(limit_bytes: int) -> BodyTooLarge:
    """The error for a body over the limit."""
    return BodyTooLarge(f"the body has more than {limit_bytes} bytes, the most that XMC_MAX_BODY_BYTES allows")
