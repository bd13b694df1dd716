"""Memory that searches work in: made once for each thread that searches at the same time, and taken in turn."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

Room = TypeVar("Room")


class Rooms(Generic[Room]):
    """Rooms of one decoder.

    Args:
        make: makes one more.

    Attributes:
        free: that no thread has.
    """

    def __init__(self, make: Callable[[], Room]) -> None:
        self._make = make
        self.free: deque[Room] = deque()

    @contextmanager
    def taken(self) -> Iterator[Room]:
        """One that no other thread has; after an error it is not used again, for it may be left in disorder."""
        try:
            room = self.free.pop()
        except IndexError:
            room = self._make()
        yield room
        self.free.append(room)
