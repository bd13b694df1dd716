from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service import lines
from service.lines import MOST_BYTES, MOST_LINES, LineWriter

PIPE_BYTES = 1 << 16


def told(lost: int) -> bytes:
    return b"lost %d\n" % lost


@dataclass
class Pipe:
    """A writer, and the other end of its pipe."""

    writer: LineWriter
    file: int
    reader: BinaryIO

    def rest(self) -> list[bytes]:
        """What comes until the writer is closed, which happens meanwhile."""
        closing = threading.Thread(target=self._close)
        closing.start()
        found = self.reader.readlines()
        closing.join()
        return found

    def _close(self) -> None:
        self.writer.close()
        self.writer._thread.join()
        os.close(self.file)


def open_pipe() -> Pipe:
    reader, file = os.pipe()
    return Pipe(LineWriter(file, told), file, os.fdopen(reader, "rb"))


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = open_pipe()
    with pipe.reader:
        yield pipe


def numbered(count: int, size: int) -> list[bytes]:
    return [(b"%d" % number).ljust(size - 1, b".") + b"\n" for number in range(count)]


@given(st.lists(st.integers(1, 10_000), max_size=60))
def test_lines_come_out_as_they_went_in_whatever_their_sizes(sizes: list[int]) -> None:
    pipe = open_pipe()
    put = [b"x" * (size - 1) + b"\n" for size in sizes]
    for line in put:
        pipe.writer.put(line)
    with pipe.reader:
        assert pipe.rest() == put
    assert pipe.writer.lost == 0


def test_a_full_pipe_that_does_not_let_its_writer_wait_is_waited_for(pipe: Pipe) -> None:
    os.set_blocking(pipe.file, False)
    assert os.write(pipe.file, b"x" * (PIPE_BYTES - 1) + b"\n") == PIPE_BYTES
    put = numbered(100, 100)
    for line in put:
        pipe.writer.put(line)
    assert pipe.rest()[1:] == put


@pytest.mark.parametrize(("count", "size"), [(3 * MOST_LINES, 20), (100, MOST_BYTES // 30)], ids=["lines", "bytes"])
def test_what_nobody_reads_is_dropped_and_told_in_its_place(pipe: Pipe, count: int, size: int) -> None:
    put = numbered(count, size)
    for line in put:
        pipe.writer.put(line)
    kept = count - pipe.writer.lost
    assert kept * size <= MOST_BYTES + size + PIPE_BYTES
    assert kept <= MOST_LINES + PIPE_BYTES // size
    assert [pipe.reader.readline() for _ in range(kept)] == put[:kept]
    assert pipe.reader.readline() == told(count - kept)
    pipe.writer.put(b"read again\n")
    assert pipe.rest() == [b"read again\n"]
    assert pipe.writer.lost == count - kept


def test_a_slow_reader_hears_of_many_lost_lines_at_once(pipe: Pipe) -> None:
    put = numbered(2 * MOST_LINES, 100)
    found = []
    for line in put:
        pipe.writer.put(line)
        if pipe.writer.lost:
            found.append(pipe.reader.readline())
    found += pipe.rest()
    assert pipe.writer.lost == sum(int(line.split()[1]) for line in found if line.startswith(b"lost"))
    assert len(put) - pipe.writer.lost == sum(not line.startswith(b"lost") for line in found)
    assert sum(line.startswith(b"lost") for line in found) <= 4


def test_nobody_waits_long_for_a_reader_at_the_end(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "EXIT_SECONDS", 0.01)
    put = numbered(2000, 100)
    for line in put:
        pipe.writer.put(line)
    pipe.writer.close()
    assert pipe.writer._thread.is_alive()
    assert pipe.rest() == put


def test_a_reader_that_is_gone_is_no_error(pipe: Pipe) -> None:
    pipe.reader.close()
    for line in numbered(100, 20):
        pipe.writer.put(line)
    pipe.writer.close()
    assert pipe.writer.lost == 100
    os.close(pipe.file)


class Interrupted(bytes):
    """A line in whose handling something happens, once, on one of two threads."""

    happen: Callable[[], None]
    on_thread: str
    has_happened = False

    def __new__(cls, line: bytes, happen: Callable[[], None], on_thread: str) -> Interrupted:
        new = super().__new__(cls, line)
        new.happen, new.on_thread = happen, on_thread
        return new

    def __len__(self) -> int:
        if not self.has_happened and threading.current_thread().name == self.on_thread:
            self.has_happened = True
            self.happen()
        return super().__len__()


def test_a_signal_is_logged_in_the_middle_of_a_line(pipe: Pipe) -> None:
    """By a handler that runs on the same thread, where waiting for the line to be put would be for ever."""
    before = signal.signal(signal.SIGUSR1, lambda *_: pipe.writer.put(b"signal\n"))
    try:
        pipe.writer.put(Interrupted(b"line\n", lambda: signal.raise_signal(signal.SIGUSR1), "MainThread"))
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert pipe.rest() == [b"line\n", b"signal\n"]


def test_what_is_let_go_on_the_thread_that_writes_may_log(pipe: Pipe) -> None:
    pipe.writer.put(Interrupted(b"line\n", lambda: pipe.writer.put(b"let go\n"), "log"))
    assert pipe.rest() == [b"line\n", b"let go\n"]
