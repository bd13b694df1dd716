"""HTTP/1.1 connections with a short way for `POST /predict`, past uvicorn's task and FastAPI's layers.

A request for labels needs no routing, no dependencies and no streaming: when its body is complete it is queued, and
when its model has answered, head and body leave in one write. At 64 connections on two cores that took the event loop
120 µs a request, against 310 µs by the way through the application. What is out of the ordinary (a pipelined request,
HTTP/1.0, `Expect`) goes through the application, which answers the same.

A request that does not end, in time or in size, loses its connection. That is looked at only when a packet leaves one
unfinished.
"""

from __future__ import annotations

import asyncio
from typing import Any, Literal

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from service.errors import HeadTooLarge, MalformedHttp, RequestError, RequestTooSlow
from service.http.asgi import ClientLeft, too_large
from service.http.middleware import CLOSE, Gate
from service.http.predict import PREDICT, Pending, answer
from service.http.problems import error_reply
from service.http.reply import Reply

MAX_HEAD_BYTES = 1 << 16
# A chunk of a byte takes six.
BYTES_IN_CHUNKS = 8

_METHOD, _TARGET = b"POST", PREDICT.encode()


# What the parser waits for: a request, the rest of a head, the rest of a body. Words, because looking up a member of an
# enumeration takes longer than all else here.
Part = Literal["beginning", "head", "body"]


class Protocol(HttpToolsProtocol):
    """uvicorn's protocol in front of a `Gate`."""

    _part: Part = "beginning"
    _was_turned_away = False
    _unfinished_bytes = 0
    _unfinished_since = 0.0  # second of the loop's clock; 0 where nothing is unfinished
    # It outlives the request for which it was set: to set one for each takes longer than to look twice.
    _unfinished_timer: asyncio.TimerHandle | None = None
    _had_to_wait = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin; who connects and says nothing is as idle as who has had an answer."""
        super().connection_made(transport)
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        self._finish()
        if self._unfinished_timer is not None:
            self._unfinished_timer.cancel()
            self._unfinished_timer = None

    def data_received(self, data: bytes) -> None:
        """Turn a request for labels away unread if it must be refused anyway; leave all else to the parser."""
        if isinstance(self.app, Gate) and self._part == "beginning" and not self._is_answering:
            answer = self.app.turnstile.turn_away(data, self.server_state.default_headers)
            if answer is not None:
                self.transport.write(answer)
                self._was_turned_away = True
                return
        super().data_received(data)
        if self._part != "beginning" and not self.transport.is_closing():
            self._await_rest(len(data))

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def timeout_keep_alive_handler(self) -> None:
        """Close the connection, unless it was used since the timer was set: turning away does not touch it."""
        if self._was_turned_away:
            self._was_turned_away = False
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )
        else:
            super().timeout_keep_alive_handler()

    def on_message_begin(self) -> None:
        """Note that the parser has a part of a request."""
        self._part = "head"
        super().on_message_begin()

    def on_message_complete(self) -> None:
        """Note that it has all of it."""
        self._part = "beginning"
        if self._unfinished_since:
            self._finish()
        super().on_message_complete()

    def on_headers_complete(self) -> None:
        """Take a request for labels; leave any other to uvicorn."""
        self._part = "body"
        if isinstance(self.app, Gate) and self._is_for_labels():
            cycle = PredictCycle(self, self.app)
            self.cycle: Any = cycle
            cycle.begin()
        else:
            super().on_headers_complete()

    def write(self, reply: Reply) -> None:
        """Send an answer."""
        headers = (*self.server_state.default_headers, *reply.headers)
        lines = b"".join([b"%b: %b\r\n" % header for header in headers])
        self.transport.write(b"".join((STATUS_LINE[reply.status], lines, b"\r\n", reply.body)))

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP as everything is refused."""
        if isinstance(self.app, Gate):
            if self._part == "beginning":
                self._part = "head"
            self._give_up(MalformedHttp("expected an HTTP/1.1 request, found something else"))
        else:
            super().send_400_response(msg)

    def _await_rest(self, size: int) -> None:
        """A packet has left a request unfinished: bound what comes before its end, and the time until then."""
        assert isinstance(self.app, Gate)
        self._unfinished_bytes += size
        if self._part == "head" and self._unfinished_bytes > MAX_HEAD_BYTES:
            self._give_up(HeadTooLarge(f"expected a head of at most {MAX_HEAD_BYTES} bytes, found more"))
        elif self._unfinished_bytes > MAX_HEAD_BYTES + BYTES_IN_CHUNKS * self.app.max_body_bytes:
            self._give_up(too_large(self.app.max_body_bytes))
        elif not self._unfinished_since:
            self._unfinished_since = self.loop.time()
            if self._unfinished_timer is None:
                self._unfinished_timer = self.loop.call_later(self.app.request_seconds, self._on_timer)

    def _finish(self) -> None:
        self._unfinished_bytes = 0
        self._unfinished_since = 0.0
        self._had_to_wait = False

    def _on_timer(self) -> None:
        """Whatever the timer was set for, look at what is unfinished now."""
        assert isinstance(self.app, Gate)
        self._unfinished_timer = None
        if not self._unfinished_since:
            return
        left = self._unfinished_since + self.app.request_seconds - self.loop.time()
        if left > 0:
            self._unfinished_timer = self.loop.call_later(left, self._on_timer)
        else:
            self._on_too_slow(self.app.request_seconds)

    def _on_too_slow(self, seconds: float) -> None:
        # It may be for us that it waits: for the answer to the request before it. Its time begins anew then.
        had_to_wait, self._had_to_wait = (
            self._had_to_wait,
            bool(self.pipeline) or (self._part == "head" and self._is_answering),
        )
        if self._had_to_wait or had_to_wait:
            self._unfinished_since = self.loop.time()
            self._unfinished_timer = self.loop.call_later(seconds, self._on_timer)
        else:
            self._give_up(RequestTooSlow(f"expected the whole request within {seconds:g} seconds, found a part of it"))

    def _give_up(self, error: RequestError) -> None:
        """Refuse the request that has not ended, if there is nothing to be answered before it; close the connection."""
        assert isinstance(self.app, Gate)
        if self._part == "head" and not self._is_answering:
            self.write(self.app.part_refused(error))
        elif self._part == "body" and isinstance(self.cycle, PredictCycle) and not self.cycle.response_complete:
            self.cycle.give_up(error)
        self.transport.close()

    def _is_for_labels(self) -> bool:
        return (
            self.url == _TARGET
            and self.parser.get_method() == _METHOD
            and self.parser.get_http_version() == "1.1"
            and not self._is_answering
            and not (self.expect_100_continue or self.parser.should_upgrade())
        )


class PredictCycle:
    """One request for labels and its answer, in the place of uvicorn's `RequestResponseCycle`.

    Attributes:
        body: what has come of the request's body; uvicorn appends to it.
        more_body: whether its end has not come; uvicorn sets it.
        disconnected: whether the client has left; uvicorn sets it.
        keep_alive: whether the connection outlives the answer; uvicorn withdraws it when it shuts down.
        response_complete: whether the request is answered.
        message_event: uvicorn calls its ``set`` after each change of these.
    """

    def __init__(self, protocol: Protocol, gate: Gate) -> None:
        self.body = bytearray()
        self.more_body = True
        self.disconnected = False
        self.keep_alive: bool = protocol.parser.should_keep_alive()
        self.response_complete = False
        self.message_event = self

        self._protocol = protocol
        self._gate = gate
        self._headers = protocol.headers
        self._exchange = gate.enter(protocol.headers, "POST", PREDICT)
        self._pending: Pending | None = None

    def begin(self) -> None:
        """Refuse the request at once if its head is enough for that."""
        if (refusal := self._gate.refusal(self._exchange, "POST", PREDICT, self._headers)) is not None:
            self._fail(refusal)

    def set(self) -> None:
        """More of the body has come, or its end, or the client has left."""
        if self.response_complete:
            return
        if self.disconnected:
            self._forget()
        elif len(self.body) > self._gate.max_body_bytes:
            self._fail(too_large(self._gate.max_body_bytes))
        elif self.more_body:
            self._protocol.flow.resume_reading()  # uvicorn pauses after each 64 KB
        elif self._pending is None:
            self._ask()

    def give_up(self, error: RequestError) -> None:
        """Refuse the request, whose end will not come, and close the connection."""
        self.keep_alive = False
        self._fail(error)

    def _ask(self) -> None:
        try:
            self._pending = self._gate.predictor.ask(self._exchange, self._headers, bytes(self.body))
        except Exception as error:
            self._fail(error)
        else:
            self._pending.future.add_done_callback(self._answer)

    def _answer(self, _: asyncio.Future[Any]) -> None:
        if self.response_complete:
            return
        assert self._pending is not None
        try:
            reply = answer(self._pending)
        except Exception as error:
            self._fail(error)
        else:
            self._reply(reply)

    def _fail(self, error: Exception) -> None:
        if isinstance(error, RequestError):
            self._exchange.error = error
            self._reply(error_reply(error, self._exchange.request_id))
        else:
            self._reply(self._gate.our_bug(self._exchange, error))

    def _reply(self, reply: Reply) -> None:
        marks = self._gate.marks(self._exchange)
        if not self.keep_alive and CLOSE not in marks:
            marks.append(CLOSE)
        reply.headers += marks
        protocol = self._protocol
        protocol.write(reply)
        self._end(reply.status)
        if CLOSE in marks:
            protocol.transport.close()
        protocol.on_response_complete()

    def _forget(self) -> None:
        """The client has left: its queries need no answer."""
        self._end(ClientLeft.status)
        if self._pending is not None:
            self._pending.future.cancel()

    def _end(self, status: int) -> None:
        self.response_complete = True
        self._exchange.status = status
        self._gate.leave(self._exchange, PREDICT)
