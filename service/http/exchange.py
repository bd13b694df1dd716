"""One request and its answer, as far as everything around the endpoints cares."""

from __future__ import annotations

import random
import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from service.access.keys import Key
from service.errors import RequestError
from service.http.asgi import Headers, Scope, header

if TYPE_CHECKING:
    from service.http.predict import Pending
    from service.telemetry.tracing import Trace

# The endpoint of a request that no route matches: paths of clients would make series without end.
UNKNOWN = "unknown"

_SCOPE_KEY = "xmcserve.exchange"
_SANE_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")


@dataclass(slots=True)
class Exchange:
    """One request and its answer.

    Attributes:
        request_id: the client's if it is sane, else one of ours.
        method: in upper case; empty where there is none.
        started: second of `time.monotonic` at which the head had arrived.
        key: that the client has sent; None where none was asked for.
        model: name of the model that answers; the endpoint sets it.
        pending: what was asked of a model, once it is; the endpoint sets it.
        trace: of the request; None where there is none.
        error: why it is refused.
        status: of the answer; 0 before there is one.
    """

    request_id: str
    method: str
    started: float = field(default_factory=time.monotonic)
    key: Key | None = None
    model: str = ""
    pending: Pending | None = None
    trace: Trace | None = None
    error: RequestError | None = None
    status: int = 0

    @classmethod
    def of(cls, headers: Headers, method: str) -> Exchange:
        """The exchange that begins with this head."""
        return cls(request_id(header(headers, b"x-request-id")), method)

    def enter(self, scope: Scope) -> None:
        """Leave it where `exchange_of` finds it."""
        scope[_SCOPE_KEY] = self


def request_id(given: bytes | None) -> str:
    """The client's id if it is sane, else one of ours."""
    if given is not None and _SANE_ID.fullmatch(given):
        return given.decode()
    return f"{random.getrandbits(128):032x}"  # uuid4 would ask the kernel for each request


def exchange_of(scope: Scope) -> Exchange:
    """The exchange that the gate has put into a request's scope."""
    exchange: Exchange = scope[_SCOPE_KEY]
    return exchange
