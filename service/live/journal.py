"""The journal of a model's changed labels: a file to which lines are added and in which none is changed.

The first line says what it is. Each line behind it is one change as JSON, with the time at which it was made. A change
is in the journal once its line is whole, on the disk and ended: what an interrupted write has left behind the last end
of a line was never acknowledged, is not read, and is cut off before the next line.

One process writes a journal; it holds a lock on it from its first line on.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from service.errors import BundleError, Conflict, NotSaved
from service.live.changes import LabelChange, LabelChanges


class JournalHead(BaseModel):
    """The first line."""

    model_config = ConfigDict(extra="forbid", strict=True)

    journal: Literal[1] = 1
    model: str


class JournalLine(LabelChange):
    """Every other line."""

    at: str


def journal_name(model: str) -> str:
    """Name of the file with a model's changes."""
    return f"{model}.labels.jsonl"


def read_journal(path: Path, model: str | None = None) -> LabelChanges:
    """What the changes in a journal come to; a journal that is not there holds none.

    Args:
        path: of the file.
        model: name of the model whose it must be; None: whosever it is.

    Raises:
        BundleError: it cannot be read, or a line that was ended is none of a journal; the sentence names it.
    """
    return _read(path, model)[0]


class Journal:
    """A journal to write to; not for several threads at once.

    Args:
        path: of the file, which need not be there.
        model: name of the model.

    Attributes:
        path: see above.
        changes: what those in it come to.

    Raises:
        BundleError: see `read_journal`.
    """

    def __init__(self, path: Path, model: str) -> None:
        self.path = path
        self._model = model
        self._file: int | None = None
        self.changes, self._size = _read(path, model)

    def append(self, change: LabelChange) -> None:
        """Write a change down for good.

        Raises:
            Conflict: it does not fit those before; see `LabelChanges.after`.
            NotSaved: it could not be written, or another process writes this journal; nothing has changed.
        """
        changes = self.changes.after(change)
        line = JournalLine(at=datetime.now(UTC).isoformat(timespec="milliseconds"), **change.model_dump())
        text = line.model_dump_json(exclude_defaults=True) + "\n"
        try:
            if self._file is None:
                self._file = self._open()
            self._require_in_place(self._file)
            if not self._size:
                text = f"{JournalHead(model=self._model).model_dump_json()}\n{text}"
            self._write(self._file, text.encode())
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise NotSaved(f"{self.path.name} could not be written: {reason}; nothing has changed") from error
        self.changes = changes

    def close(self) -> None:
        """Let another process write the journal."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _open(self) -> int:
        is_new = not self.path.exists()
        file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            self._lock(file)
            if is_new:
                _sync_folder(self.path.parent)
        except BaseException:
            os.close(file)
            raise
        return file

    def _lock(self, file: int) -> None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise NotSaved(f"{self.path.name} is written by another process; nothing has changed") from None
        # Whoever held the lock since this process has read it may have written, but never within what was read.
        try:
            size = _read(self.path, self._model)[1]
        except BundleError:
            size = -1
        if size != self._size:
            raise NotSaved(f"{self.path.name} was changed by another process: this one needs a restart to know it")

    def _require_in_place(self, file: int) -> None:
        """Refuse to write what nobody would read after a restart."""
        own, there = os.fstat(file), self.path.stat() if self.path.exists() else None
        if there is None or (there.st_dev, there.st_ino) != (own.st_dev, own.st_ino):
            raise NotSaved(f"{self.path.name} was moved or deleted: this process needs a restart to know what is there")

    def _write(self, file: int, line: bytes) -> None:
        """Add a line, or leave the file as it was."""
        try:
            os.ftruncate(file, self._size)
            written = 0
            while written < len(line):
                written += os.pwrite(file, line[written:], self._size + written)
            os.fsync(file)
        except OSError:
            with suppress(OSError):  # a reader stops before a line without its end, so that this would suffice
                os.ftruncate(file, self._size)
            raise
        self._size += len(line)


def _read(path: Path, model: str | None) -> tuple[LabelChanges, int]:
    """What the changes come to, and the size of the lines that are whole."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return LabelChanges(), 0
    except OSError as error:
        raise BundleError(f"{path}: expected a readable journal, found: {error}") from error
    lines = content.split(b"\n")[:-1]
    if not lines:
        return LabelChanges(), 0
    changes: list[LabelChange] = []
    for number, line in enumerate(lines, start=1):
        try:
            if number == 1:
                _check_head(JournalHead.model_validate_json(line), model)
            else:
                changes.append(JournalLine.model_validate_json(line))
        except ValueError as error:
            raise BundleError(f"{path}:{number}: expected {_expected(number)}, found: {_fault(error)}") from None
    try:
        return LabelChanges.of(changes), sum(map(len, lines)) + len(lines)
    except Conflict as error:
        raise BundleError(f"{path}: expected changes that follow from each other, found: {error}") from None


def _check_head(head: JournalHead, model: str | None) -> None:
    if model not in (None, head.model):
        raise ValueError(f"that of {head.model}, and the model is {model}")


def _expected(number: int) -> str:
    return "the head of a journal of labels" if number == 1 else "a change of labels"


def _fault(error: ValueError) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(map(str, first["loc"]))
    return f"{where}: {first['msg']}" if where else first["msg"]


def _sync_folder(folder: Path) -> None:
    """Make the name of a new file last."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
