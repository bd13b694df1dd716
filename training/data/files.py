"""How every reader here opens a file, and the one error each of them raises.

Files are read a line at a time, as bytes or as strict UTF-8, from plain text or gzip; whatever is wrong with them ends
in a `DataError` that says where it was found.
"""

from __future__ import annotations

import gzip
import io
import re
import reprlib
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

BUFFER_BYTES = 1 << 17


class DataError(Exception):
    """A data file is not what its layout promises.

    Attributes:
        file: the file, or the folder when the folder as a whole is wrong.
        line: number of the line, counted from 1; None when the file as a whole is wrong.
        expected: what should have stood there.
        found: what stands there.
    """

    def __init__(self, file: Path, line: int | None, expected: str, found: str, *, unit: str = "line") -> None:
        """`unit` names what `line` counts: formats without lines count rows."""
        place = str(file) if line is None else f"{file}, {unit} {line}"
        super().__init__(f"{place}: expected {expected}, found {found}")
        self.file = file
        self.line = line
        self.expected = expected
        self.found = found


def excerpt(value: object) -> str:
    """Show a value in an error sentence: its repr, with long texts and lists shortened."""
    shortener = reprlib.Repr()
    shortener.maxstring = shortener.maxother = shortener.maxlong = 60
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    return shortener.repr(value)


def find_roles(folder: Path, pattern: re.Pattern[str]) -> dict[str, Path]:
    """Map the roles of one layout to the files that play them.

    Args:
        folder: the data folder.
        pattern: matches a file's whole name; its group `role` names the role.

    Raises:
        DataError: two files play the same role.
    """
    files: dict[str, Path] = {}
    for file in sorted(folder.iterdir()):
        match = pattern.fullmatch(file.name)
        if match is None:
            continue
        other = files.setdefault(match["role"], file)
        if other != file:
            raise DataError(folder, None, f"one '{match['role']}' file", f"'{other.name}' and '{file.name}'")
    return files


def read_byte_lines(file: Path) -> Iterator[tuple[int, bytes]]:
    r"""Yield (line number from 1, line without its line end); only \n and \r\n end a line.

    Raises:
        DataError: the file cannot be read, or its gzip data is damaged or cut short.
    """
    line = 0
    try:
        with _open(file) as stream:
            for line, content in enumerate(stream, start=1):
                yield line, content.rstrip(b"\r\n")
    except (OSError, EOFError, zlib.error) as error:
        kind = "complete gzip data" if file.suffix == ".gz" else "a readable file"
        raise DataError(file, line + 1, kind, str(error)) from error


def read_lines(file: Path) -> Iterator[tuple[int, str]]:
    """Yield (line number from 1, line as text); a byte order mark at the start is dropped.

    Raises:
        DataError: as `read_byte_lines`, or a line is not UTF-8.
    """
    for line, content in read_byte_lines(file):
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(file, line, "UTF-8 text", f"byte 0x{content[error.start]:02x}") from error
        yield line, text.removeprefix("\ufeff") if line == 1 else text


def _open(file: Path) -> BinaryIO:
    if file.suffix != ".gz":
        return file.open("rb", buffering=BUFFER_BYTES)
    # GzipFile itself hands out lines through a Python call each; a BufferedReader around it does not.
    return cast("BinaryIO", io.BufferedReader(gzip.open(file), BUFFER_BYTES))
