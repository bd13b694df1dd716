"""What the process that speaks HTTP and one that computes say to each other: pickled tuples behind their length.

Both ends are this program, joined by a pair of sockets that nobody else has. What crosses in bulk is plain tuples,
strings and numbers, because a class costs as much to pickle as all that is in it.
"""

from __future__ import annotations

import mmap
import pickle
import select
import socket
import struct
import threading
from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple

_LENGTH = struct.Struct("<Q")
_CHUNK_BYTES = 1 << 18

# A request: its number, its items, its deadline and since when it waits, both in seconds of `time.monotonic`, which all
# processes of a machine share. Or one that needs no answer any more: its number, None, why, and since when.
Asked = tuple[int, Any, Any, float]
# The answers to a request's rows, each a result, the seconds it waited and the seconds in which it was prepared; or the
# `RequestError` that its waiter hears; or None when nobody waits.
Outcome = Any
Closed = tuple[int, Outcome]


class Report(NamedTuple):
    """What a batcher tells its client at once.

    Attributes:
        closed: requests that are finished, by number.
        rows: in the batch that was computed; 0 without one.
        seconds: that it took.
        notes: names of series and what they shall observe, in order.
    """

    closed: list[Closed]
    rows: int
    seconds: float
    notes: list[tuple[str, float]]


class Notes:
    """What is to be observed at the other end. Any thread may add; one at a time may take."""

    def __init__(self) -> None:
        self._notes: deque[tuple[str, float]] = deque()

    def add(self, series: str, value: float) -> None:
        """Note one value for a series."""
        self._notes.append((series, value))

    def take(self) -> list[tuple[str, float]]:
        """All notes since the last call, in order."""
        return [self._notes.popleft() for _ in range(len(self._notes))]


def packed(message: object) -> bytes:
    """One message as a frame."""
    content = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    return _LENGTH.pack(len(content)) + content


class Unpacker:
    """Messages out of bytes that come in any pieces."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def feed(self, data: bytes) -> Iterator[Any]:
        """Take bytes in and give the messages that are complete."""
        self._bytes += data
        while len(self._bytes) >= _LENGTH.size:
            (size,) = _LENGTH.unpack_from(self._bytes)
            end = _LENGTH.size + size
            if len(self._bytes) < end:
                return
            content = bytes(memoryview(self._bytes)[_LENGTH.size : end])
            del self._bytes[:end]
            yield pickle.loads(content)


class Connection:
    """The blocking end of a channel. Any thread may send; one at a time may receive."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._unpacker = Unpacker()
        self._readable = select.poll()
        self._readable.register(end, select.POLLIN)
        self._sending = threading.Lock()

    def send(self, message: object) -> None:
        """Send one message; when the other end is gone, nobody wants it."""
        frame = packed(message)
        with self._sending:
            try:
                self._end.sendall(frame)
            except (BrokenPipeError, ConnectionResetError):
                return

    def receive(self, seconds: float | None) -> list[Any] | None:
        """Messages that have come, after waiting for the first of them.

        Args:
            seconds: to wait at most, after which there may be none; None waits as long as it takes.

        Returns:
            The messages in order, or None when the other end is gone.
        """
        if not self._readable.poll(None if seconds is None else 1000 * seconds):
            return []
        try:
            data = self._end.recv(_CHUNK_BYTES)
        except ConnectionResetError:
            return None
        return list(self._unpacker.feed(data)) if data else None

    def receive_one(self) -> Any:
        """The first message of a conversation that has one at a time, or None when the other end is gone."""
        while (messages := self.receive(None)) is not None:
            for message in messages:
                return message
        return None

    def close(self) -> None:
        """End the conversation for both ends; who waits in `receive` hears of it."""
        try:
            self._end.shutdown(socket.SHUT_RDWR)
        except OSError:  # the other end was faster
            return


class SharedCount:
    """A number that one process sets and another reads, without a message.

    Args:
        file: descriptor of a file of at least `BYTES`, which both have.
    """

    BYTES = 8

    def __init__(self, file: int) -> None:
        # Eight aligned bytes are written and read in one piece.
        self._value = memoryview(mmap.mmap(file, self.BYTES)).cast("q")

    @property
    def value(self) -> int:
        """The number."""
        return self._value[0]

    @value.setter
    def value(self, value: int) -> None:
        self._value[0] = value
