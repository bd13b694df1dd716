"""Log lines for people or for machines, on standard error, with the standard library's loggers.

One event is one line, whatever clients have sent: control characters, and what else ends a line or turns the writing
around, are written as escapes. Only the stack of an error takes more lines, each of them indented.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from itertools import chain
from typing import Any

from service.settings import LogFormat

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


def configure_logging(log_format: LogFormat) -> None:
    """Send everything from level INFO on to standard error, in place of whatever was configured before."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else ConsoleFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """What an event says beside its message."""
    request_id = getattr(record, "request_id", None)
    return {**({"request_id": request_id} if request_id else {}), **getattr(record, "fields", {})}


def _text(value: object) -> str:
    """A value that is told from its neighbours."""
    return value if isinstance(value, str) and value and " " not in value else json.dumps(value, ensure_ascii=False)
