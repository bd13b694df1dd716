"""Log lines for people or for machines, on standard error, with the standard library's loggers.

One event is one line, whatever clients have sent: control characters, and what else ends a line or turns the writing
around, are written as escapes. Only the stack of an error takes more lines, each of them indented.

Whoever logs formats the line, because arguments and errors may change afterwards, and leaves it to `service.lines`.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from datetime import UTC, datetime
from itertools import chain
from typing import Any

from service.lines import LineWriter
from service.settings import LogFormat

logger = logging.getLogger(__name__)

_CONSOLE = "%(asctime)s %(levelname)-8s %(name)s: %(message)s"

# C0 and C1 controls with DEL, the separators of lines and paragraphs, and marks of direction.
_UNSAFE = chain(range(0x20), range(0x7F, 0xA0), (0x2028, 0x2029, 0x061C), range(0x200E, 0x2010), range(0x202A, 0x202F))
_ESCAPES = {code: f"\\u{code:04x}" for code in (*_UNSAFE, *range(0x2066, 0x206A))}


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message and, where there are such, request_id, fields and stack."""

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter.format`."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= _fields(record)
        if record.exc_info:
            line["stack"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False).translate(
            _ESCAPES
        )  # inside strings JSON reads them as what they were


class ConsoleFormatter(logging.Formatter):
    """A readable line, with the same fields at its end."""

    def __init__(self) -> None:
        super().__init__(_CONSOLE)

    def formatMessage(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter.formatMessage`."""
        fields = "".join(f" {name}={_text(value)}" for name, value in _fields(record).items())
        return (super().formatMessage(record) + fields).translate(_ESCAPES)

    def formatException(self, ei: Any) -> str:
        """See `logging.Formatter.formatException`; no line of a stack begins as an event does."""
        lines = super().formatException(ei).split("\n")
        return "\n".join(f"  {line.translate(_ESCAPES)}" for line in lines)


class LineHandler(logging.Handler):
    """Records as lines, written by a thread; `logging.shutdown` waits a moment for the last ones.

    Args:
        file: descriptor to write to, in UTF-8.
        formatter: of the lines.
    """

    def __init__(self, file: int, formatter: logging.Formatter) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self._writer = LineWriter(file, self._lost_line)

    @property
    def lost(self) -> int:
        """Lines so far that nobody can read."""
        return self._writer.lost

    def handle(self, record: logging.LogRecord) -> bool:
        """See `logging.Handler.handle`; without its lock, for which one thread would wait while another formats."""
        passes = bool(self.filter(record))
        if passes:
            self.emit(record)
        return passes

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler.emit`."""
        try:
            line = self._line(record)
        except Exception:  # what `handleError` has to say it writes itself, and waits for the reader
            fault, place = "a line cannot be formatted: %s:%d", (record.pathname, record.lineno)
            line = self._line(logger.makeRecord(record.name, logging.ERROR, *place, fault, place, sys.exc_info()))
        self._writer.put(line)

    def close(self) -> None:
        """See `logging.Handler.close`."""
        self._writer.close()
        super().close()

    def _line(self, record: logging.LogRecord) -> bytes:
        return f"{self.format(record)}\n".encode(errors="backslashreplace")

    def _lost_line(self, lost: int) -> bytes:
        text = "%d lines of this log are lost: they came faster than they were read"
        return self._line(logger.makeRecord(logger.name, logging.WARNING, __file__, 0, text, (lost,), None))


def configure_logging(log_format: LogFormat) -> LineHandler:
    """Send everything from level INFO on to standard error, in place of whatever was configured before.

    Before the process ends by `os._exit`, it has to call `logging.shutdown`; otherwise Python does.
    """
    # A process that was started without has other files under its number.
    file = sys.stderr.fileno() if sys.stderr else os.open(os.devnull, os.O_WRONLY)
    handler = LineHandler(file, JsonFormatter() if log_format == "json" else ConsoleFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    _log_what_python_writes()
    return handler


def _log_what_python_writes() -> None:
    """Have warnings, and errors that nobody caught, logged: Python writes them to standard error itself, and waits."""
    logging.captureWarnings(True)

    def end(*error: Any) -> None:
        logger.critical("the process ends by an error that nobody caught", exc_info=error)

    def end_thread(ended: threading.ExceptHookArgs) -> None:
        if not issubclass(ended.exc_type, SystemExit):
            error: Any = ended[:3]
            logger.critical("thread %s ended by an error", ended.thread and ended.thread.name, exc_info=error)

    def pass_over(found: sys.UnraisableHookArgs) -> None:
        error: Any = (found.exc_type, found.exc_value, found.exc_traceback)
        logger.error("%s: %r", found.err_msg or "Exception ignored in", found.object, exc_info=error)

    sys.excepthook, threading.excepthook, sys.unraisablehook = end, end_thread, pass_over


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """What an event says beside its message."""
    request_id = getattr(record, "request_id", None)
    return {**({"request_id": request_id} if request_id else {}), **getattr(record, "fields", {})}


def _text(value: object) -> str:
    """A value that is told from its neighbours."""
    return value if isinstance(value, str) and value and " " not in value else json.dumps(value, ensure_ascii=False)
