"""One JSON object a line: read strictly, and written so that equal content gives equal bytes."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Self

from training.data.files import DataError, excerpt, read_lines

Record = dict[str, object]


def read_json_lines(file: Path) -> Iterator[tuple[int, Record]]:
    """Yield (line number from 1, object) for every line of a `.json`, `.jsonl` or gzipped file.

    Raises:
        DataError: a line is not one JSON object, or holds text that is no Unicode text.
    """
    decode = json.JSONDecoder().decode
    for line, text in read_lines(file):
        try:
            record = decode(text)
        except (ValueError, RecursionError) as error:  # also nesting too deep and integers too long
            found = f"{excerpt(text)} ({error})" if text.strip() else "an empty line"
            raise DataError(file, line, "a JSON object", found) from error
        if type(record) is not dict:
            raise DataError(file, line, "a JSON object", excerpt(record))
        if "\\ud" in text or "\\uD" in text:
            _refuse_lone_surrogates(file, line, record)
        yield line, record


def text_field(file: Path, line: int, record: Record, name: str) -> str:
    """Return the string `record[name]`.

    Raises:
        DataError: the field is missing or no string.
    """
    value = require_field(file, line, record, name)
    if type(value) is not str:
        raise DataError(file, line, f"a string as '{name}'", excerpt(value))
    return value


def require_field(file: Path, line: int, record: Record, name: str) -> object:
    """Return `record[name]`.

    Raises:
        DataError: the field is missing.
    """
    if name not in record:
        present = ", ".join(f"'{key}'" for key in record) or "none"
        raise DataError(file, line, f"a field '{name}'", f"the fields {present}")
    return record[name]


def _refuse_lone_surrogates(file: Path, line: int, record: Record) -> None:
    """JSON's escapes can spell half a surrogate pair, which no UTF-8 text may hold and tokenizers choke on."""
    try:
        json.dumps(record, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(file, line, "Unicode text", "half a surrogate pair (\\ud800 to \\udfff)") from error


class JsonLinesWriter:
    """A gzipped file of JSON lines without a time stamp or a file name inside; a context manager.

    Attributes:
        count: how many records have been written.
    """

    def __init__(self, file: Path, *, level: int = 6) -> None:
        """`file` is made anew; `level` is gzip's, 1 to 9."""
        self.count = 0
        self._raw = file.open("wb")
        self._stream = gzip.GzipFile("", "wb", level, self._raw, mtime=0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._stream.close()
        self._raw.close()

    def write(self, record: Mapping[str, object]) -> None:
        """Append one record."""
        self._stream.write(json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode("utf-8") + b"\n")
        self.count += 1


def write_json_lines(file: Path, records: Iterable[Mapping[str, object]], *, level: int = 6) -> int:
    """Write all records with a `JsonLinesWriter`; returns how many there were."""
    with JsonLinesWriter(file, level=level) as writer:
        for record in records:
            writer.write(record)
    return writer.count
