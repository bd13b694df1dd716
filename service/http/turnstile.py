"""Turning requests for labels away while no queue has room, at next to no cost.

Under lasting overload most requests are refused, and what that takes of the processors and of the interpreter lock is
taken from those that are answered. So they are refused unread, with an answer that is made once for many.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from service.errors import QueueFull
from service.http.exchange import request_id
from service.http.lifecycle import Lifecycle, Phase
from service.http.predict import PREDICT
from service.http.problems import error_reply
from service.http.unread import given_request_id, is_plain_request
from service.metrics import REJECTIONS, Metrics
from service.models.registry import Registry
from service.telemetry.access_log import AccessLog

# How long a refusal says the same: the state of a queue that is full is not news to anybody.
SAME_SECONDS = 0.01

Headers = Sequence[tuple[bytes, bytes]]


class _Refusal(NamedTuple):
    """The answer to all that are turned away for a while; what follows the body's last string closes it."""

    until: float
    head: bytes
    body: bytes


class Turnstile:
    """In front of the parser.

    Args:
        lifecycle: of the process.
        registry: tells whether a queue has room.
        metrics: where refusals are counted.
        log: where they are told of together; None: nowhere.
    """

    def __init__(self, lifecycle: Lifecycle, registry: Registry, metrics: Metrics, log: AccessLog | None) -> None:
        self._lifecycle = lifecycle
        self._registry = registry
        self._metrics = metrics
        self._log = log
        self._refusal = _Refusal(0.0, b"", b"")

    def turn_away(self, data: bytes, headers: Headers) -> bytes | None:
        """The whole answer to a request that must be refused, or None when its bytes must be read.

        Args:
            data: what a connection has sent after its last request.
            headers: that every answer of the server has.
        """
        if self._lifecycle.phase is not Phase.SERVING or self._registry.has_room() or not is_plain_request(data):
            return None
        now = time.monotonic()
        if now >= self._refusal.until and not self._renew(now, headers):
            return None
        self._metrics.reject(REJECTIONS[QueueFull])
        self._metrics.observe_request(PREDICT, "", QueueFull.status, time.monotonic() - now)
        if self._log is not None:
            self._log.pass_over()
        _, head, body = self._refusal
        name = request_id(given_request_id(data)).encode()
        length = len(body) + len(name) + 2
        return b'%bx-request-id: %b\r\ncontent-length: %d\r\n\r\n%b%b"}' % (head, name, length, body, name)

    def _renew(self, now: float, headers: Headers) -> bool:
        """Make the refusal anew; False when it is not for a full queue that requests are refused."""
        error = self._registry.refusal()
        if not isinstance(error, QueueFull):
            return False
        reply = error_reply(error, "")
        fixed = [header for header in (*headers, *reply.headers) if header[0] != b"content-length"]
        lines = b"".join([b"%b: %b\r\n" % header for header in fixed])
        assert reply.body.endswith(b'"request_id":""}'), "the id comes last, so that it can be filled in"
        self._refusal = _Refusal(now + SAME_SECONDS, STATUS_LINE[reply.status] + lines, reply.body[:-2])
        return True
