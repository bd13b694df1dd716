"""The process that writes the prediction log, as Parquet files that are whole or not there.

Rows are gathered into row groups, groups into a file whose name ends in ``.part``; when the file is large or old
enough, it is closed and gets its own name. `service/README.md` says what the columns mean: `xmc-train evaluate` reads
them.
"""

from __future__ import annotations

import logging
import os
import secrets
import signal
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from service.batching.channel import Connection, SharedCount
from service.logs import configure_logging
from service.models.queries import Features
from service.schemas import labels_and_scores
from service.settings import LogFormat
from service.telemetry.records import Record

logger = logging.getLogger(__name__)

PARTIAL = ".part"


class Rotation(NamedTuple):
    """When something is written.

    Attributes:
        group_rows: of a row group.
        file_bytes: of a file, above which it is closed.
        file_seconds: since its first row, after which it is closed.
    """

    group_rows: int = 8192
    file_bytes: int = 64 << 20
    file_seconds: float = 300.0


class PredictionFiles:
    """The files in one folder.

    Args:
        folder: that exists.
        lost: counts the rows that could not be written.
        rotation: when something is written.
    """

    def __init__(self, folder: Path, lost: SharedCount, rotation: Rotation) -> None:
        import pyarrow
        from pyarrow import parquet

        self._arrow, self._parquet = pyarrow, parquet
        self._schema = pyarrow.schema(
            [
                ("time", pyarrow.timestamp("us", tz="UTC")),
                ("request_id", pyarrow.string()),
                ("model", pyarrow.string()),
                ("version", pyarrow.string()),
                ("position", pyarrow.int32()),
                ("text", pyarrow.string()),
                ("feature_indices", pyarrow.list_(pyarrow.int64())),
                ("feature_values", pyarrow.list_(pyarrow.float32())),
                ("k", pyarrow.int32()),
                ("labels", pyarrow.list_(pyarrow.string())),
                ("scores", pyarrow.list_(pyarrow.float32())),
                ("seconds", pyarrow.float64()),
            ]
        )
        self._folder = folder
        self._lost = lost
        self._rotation = rotation
        self._name = secrets.token_hex(4)
        self._rows: list[tuple[Any, ...]] = []
        self._since = 0.0
        self._path: Path | None = None
        self._rows_in_file = 0
        self._stream: Any = None
        self._writer: Any = None
        self._fails = False

    def add(self, records: Sequence[Record]) -> None:
        """Take rows in."""
        for record in records:
            if not self._rows and self._path is None:
                self._since = time.monotonic()
            self._rows += _rows(record)
        if len(self._rows) >= self._rotation.group_rows:
            self._attempt(self._write_group)

    @property
    def seconds_left(self) -> float | None:
        """Until what there is must be in a file of its own; None where there is nothing."""
        if not self._rows and self._path is None:
            return None
        return max(0.0, self._since + self._rotation.file_seconds - time.monotonic())

    def rotate(self) -> None:
        """Close the file if it is due."""
        is_large = self._stream is not None and self._stream.tell() >= self._rotation.file_bytes
        if is_large or self.seconds_left == 0.0:
            self.close()

    def close(self) -> None:
        """Put what there is into its file, and give this its name."""
        if self._rows or self._path is not None:
            self._attempt(self._finish)

    def _attempt(self, write: Callable[[], None]) -> None:
        """Write, or count what is lost by not being able to, with one line in the log until it is possible again."""
        try:
            write()
        except (OSError, ValueError) as error:  # the second where Arrow does not take a value
            if not self._fails:
                logger.error("predictions cannot be written and are lost: %s", error)
            self._fails = True
            self._lost.value += len(self._rows) + self._rows_in_file
            self._rows = []
            self._abandon()
        else:
            if self._fails:
                logger.info("predictions are written again")
            self._fails = False

    def _write_group(self) -> None:
        if self._path is None:
            moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
            self._path = self._folder / f"predictions-{moment}-{self._name}.parquet{PARTIAL}"
            self._stream = self._path.open("xb")
            self._writer = self._parquet.ParquetWriter(self._stream, self._schema, compression="zstd")
        columns = [
            self._arrow.array(column, field.type)
            for column, field in zip(zip(*self._rows, strict=True), self._schema, strict=True)
        ]
        self._writer.write_table(self._arrow.Table.from_arrays(columns, schema=self._schema))
        self._rows_in_file += len(self._rows)
        self._rows = []

    def _finish(self) -> None:
        if self._rows:
            self._write_group()
        assert self._path is not None
        self._writer.close()
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._stream.close()
        self._path.rename(self._path.with_suffix(""))
        self._forget()

    def _abandon(self) -> None:
        """Remove a file that has not become one."""
        path, stream = self._path, self._stream
        self._forget()
        if stream is not None:
            with suppress(OSError):  # what it could not write before, it cannot write now
                stream.close()
        if path is not None:
            path.unlink(missing_ok=True)

    def _forget(self) -> None:
        self._path = self._stream = self._writer = None
        self._rows_in_file = 0


def _rows(record: Record) -> list[tuple[Any, ...]]:
    """The rows of one request, in the order of the columns."""
    rows = []
    for position, (query, prediction) in enumerate(zip(record.queries, record.predictions, strict=True)):
        labels, scores = labels_and_scores(prediction)
        asked = (None, query.indices, query.values) if isinstance(query, Features) else (query, None, None)
        identity = (record.time_us, record.request_id, record.model, record.version, position)
        rows.append((*identity, *asked, record.k, labels, scores, record.seconds))
    return rows


def main(end: int, lost: int, folder: str, log_format: LogFormat) -> None:
    """Be the process, until the connection ends.

    Args:
        end: descriptor of its end of the connection, on which lists of records come.
        lost: descriptor of the shared count's file.
        folder: for the files.
        log_format: see `Settings`.
    """
    # Its life hangs on the connection: the last rows come after the signal that ends the service.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    configure_logging(log_format)
    connection = Connection(socket.socket(fileno=end))
    files = PredictionFiles(Path(folder), SharedCount(lost), Rotation())
    while (batches := connection.receive(files.seconds_left)) is not None:
        for batch in batches:
            files.add(batch)
        files.rotate()
    files.close()
