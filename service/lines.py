"""The way of log lines to their reader, on which nobody waits: a bounded queue, and a thread that writes.

A pipe whose reader has stopped takes 64 KB, and then holds up whoever writes to it for as long as he likes. So what
does not fit into the queue is dropped, and a line in its place says how much it was.

    loggers ──▶ queue ──▶ thread ──▶ standard error
"""

from __future__ import annotations

import os
import select
import threading
from collections import deque
from collections.abc import Callable

# What may wait; a line is taken while there is less than this.
MOST_LINES = 10_000
MOST_BYTES = 16 << 20
# For the last lines of a process whose reader is slow, or gone.
EXIT_SECONDS = 1.0


class LineWriter:
    """A queue of lines and the thread that writes them.

    Args:
        file: descriptor to write to; it stays open.
        tell: makes a line that says how many were dropped.

    Attributes:
        lost: lines that were dropped, or that the file did not take.
    """

    def __init__(self, file: int, tell: Callable[[int], bytes]) -> None:
        self.lost = 0
        self._file = file
        self._room = select.poll()
        self._room.register(file, select.POLLOUT)
        self._tell = tell
        # Guards what follows. Its lock is reentrant: handlers of signals and finalizers log in the middle of anything.
        self._changed = threading.Condition()
        self._lines: deque[bytes] = deque()  # with those that are being written
        self._bytes = 0
        self._untold = 0  # and above 0 no line is taken
        self._is_closed = False
        self._thread = threading.Thread(target=self._write_all, name="log", daemon=True)
        self._thread.start()

    def put(self, line: bytes) -> None:
        """Have a line written, or drop it, and in neither case wait; on any thread, and in the middle of another call.

        Args:
            line: with its end.
        """
        with self._changed:
            if self._untold or len(self._lines) >= MOST_LINES or self._bytes >= MOST_BYTES:
                self._untold += 1
                self.lost += 1
            else:
                self._append(line)

    def close(self) -> None:
        """Wait until all lines are written, but not for long; call it when there will be no more."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join(EXIT_SECONDS)

    # On the thread ---------------------------------------------------------------------------------------------------

    def _write_all(self) -> None:
        while lines := self._next_lines():
            is_written = self._write(b"".join(lines))
            self._remove(lines, is_written)

    def _next_lines(self) -> list[bytes]:
        """Wait for lines; none means that there will be no more.

        Several are as many as a pipe takes in one piece, whoever else writes to it. They are written together because
        each call lets go of Python's lock, which a busy event loop gives back late.
        """
        with self._changed:
            while not self._lines and not self._is_closed:
                self._changed.wait()
            lines: list[bytes] = []
            size = 0
            while len(lines) < len(self._lines):  # which may grow meanwhile, as above
                line = self._lines[len(lines)]
                size += len(line)
                if lines and size > select.PIPE_BUF:
                    break
                lines.append(line)
            return lines

    def _write(self, data: bytes) -> bool:
        """Wait until the file has taken all.

        Returns:
            Whether it has; there is nobody to tell the reason.
        """
        while data:
            try:
                data = data[os.write(self._file, data) :]
            except BlockingIOError:  # others have the same pipe, and may have made it so
                self._room.poll()
            except OSError:
                return False
        return True

    def _remove(self, lines: list[bytes], is_written: bool) -> None:
        with self._changed:
            for line in lines:
                self._lines.popleft()
                self._bytes -= len(line)
            if not is_written:
                self.lost += len(lines)
            # Not at once: with a reader who is merely slow, every second line would be one that tells of the others.
            if self._untold and len(self._lines) <= MOST_LINES // 2 and self._bytes <= MOST_BYTES // 2:
                untold, self._untold = self._untold, 0
                self._append(self._tell(untold))

    # With the lock held ----------------------------------------------------------------------------------------------

    def _append(self, line: bytes) -> None:
        self._lines.append(line)
        self._bytes += len(line)
        self._changed.notify()
