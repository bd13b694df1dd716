"""Rows of a user's own table: the same named columns from JSON lines, CSV or Parquet, streamed."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from training.data.files import DataError, excerpt, read_lines
from training.data.json_lines import read_json_lines, require_field

PARQUET_BATCH_ROWS = 1024


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table.

    Attributes:
        file: the table.
        number: line of a text file (the last line of a quoted CSV field that spans several), row of a Parquet file;
            counted from 1.
        values: the columns asked for, by name.
    """

    file: Path
    number: int
    values: dict[str, object]

    def error(self, expected: str, found: str) -> DataError:
        """Return the error that says what is wrong with this row."""
        return DataError(self.file, self.number, expected, found, unit=_unit(self.file))

    def text(self, column: str) -> str:
        """Return a column that must hold text.

        Raises:
            DataError: it holds something else, or nothing but white space.
        """
        value = self.values[column]
        if not (type(value) is str and value.strip()):
            raise self.error(f"text in column '{column}'", excerpt(value))
        return value

    def optional_text(self, column: str) -> str:
        """Return a column that may hold text: nothing where it is null or white space.

        Raises:
            DataError: it holds something else.
        """
        value = self.values[column]
        if not (value is None or type(value) is str):
            raise self.error(f"text or nothing in column '{column}'", excerpt(value))
        return (value or "").strip()

    def name(self, column: str) -> str:
        """Return a column that must hold an id, as text.

        Raises:
            DataError: it holds neither a string nor a whole number, or nothing but white space.
        """
        return self._name(column, self.values[column])

    def labels(self, column: str, separator: str) -> list[str]:
        """Return a column's labels without repetitions: a list, a text that spells one in JSON, or a text to be split.

        Args:
            column: with the labels.
            separator: between labels in a text that is no JSON list.

        Raises:
            DataError: it holds something else.
        """
        value = self.values[column]
        if type(value) is str:
            value = self._parse_list(column, value.strip(), separator)
        elif type(value) is int:
            value = [value]
        if type(value) is not list:
            raise self.error(f"labels in column '{column}': a list, or text to be split", excerpt(value))
        return list(dict.fromkeys(self._name(column, label) for label in value))

    def _name(self, column: str, value: object) -> str:
        name = str(value).strip() if type(value) in (str, int) else ""
        # A JSON list inside a text can spell half a surrogate pair, which no file may hold; "ignore" leaves it out.
        if not name or name.encode("utf-8", "ignore").decode("utf-8") != name:
            raise self.error(f"strings or whole numbers in column '{column}'", excerpt(value))
        return name

    def _parse_list(self, column: str, text: str, separator: str) -> object:
        if not (text.startswith("[") and text.endswith("]")):
            return [part for part in text.split(separator) if part.strip()]
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            expected = f"labels in column '{column}': a JSON list where the text begins with '[' and ends with ']'"
            raise self.error(expected, excerpt(text)) from error


def read_table(file: Path, columns: Sequence[str], optional: Sequence[str] = ()) -> Iterator[Row]:
    """Stream the named columns of one table; the file's name tells its format.

    Args:
        file: `.jsonl`, `.json` (one object a line) or `.csv`, each also gzipped, or `.parquet`.
        columns: the columns to read; a row has each of them.
        optional: columns that are None where the table, or the JSON object, has none.

    Raises:
        DataError: another kind of file, a missing column, or a row that its format does not allow.
    """
    kind = Path(file.stem).suffix if file.suffix == ".gz" else file.suffix
    if not file.is_file():
        raise DataError(file, None, "a file", "a folder" if file.is_dir() else "nothing")
    if kind in {".json", ".jsonl"}:
        yield from _read_json(file, columns, optional)
    elif kind == ".csv":
        yield from _read_csv(file, columns, optional)
    elif file.suffix == ".parquet":
        yield from _read_parquet(file, columns, optional)
    else:
        raise DataError(file, None, "a file name ending in .jsonl, .json, .csv or .parquet", excerpt(file.name))


def _unit(file: Path) -> str:
    return "row" if file.suffix == ".parquet" else "line"


def _read_json(file: Path, columns: Sequence[str], optional: Sequence[str]) -> Iterator[Row]:
    for line, record in read_json_lines(file):
        values = {column: require_field(file, line, record, column) for column in columns}
        yield Row(file, line, values | {column: record.get(column) for column in optional})


def _read_csv(file: Path, columns: Sequence[str], optional: Sequence[str]) -> Iterator[Row]:
    reader = csv.reader((f"{text}\n" for _, text in read_lines(file)), strict=True)
    header: list[str] | None = None
    places: dict[str, int] = {}
    absent: dict[str, object] = {}
    # The csv module's limit on a field is one setting for the whole process; documents are longer than it.
    limit = csv.field_size_limit(sys.maxsize)
    try:
        for fields in reader:
            if header is None:
                header, places = fields, _places(file, fields, [*columns, *(set(optional) & set(fields))])
                absent = dict.fromkeys(column for column in optional if column not in places)
            elif len(fields) != len(header):
                raise DataError(file, reader.line_num, f"{len(header)} fields, as in the header", str(len(fields)))
            else:
                yield Row(file, reader.line_num, absent | {column: fields[place] for column, place in places.items()})
    except csv.Error as error:
        raise DataError(file, reader.line_num, "CSV", str(error)) from error
    finally:
        csv.field_size_limit(limit)
    if header is None:
        raise DataError(file, 1, "a header with column names", "an empty file")


def _places(file: Path, header: Sequence[str], columns: Sequence[str]) -> dict[str, int]:
    for column in columns:
        if header.count(column) != 1:
            found = f"{header.count(column)} such columns" if column in header else f"the columns {', '.join(header)}"
            raise DataError(file, 1, f"one column '{column}'", found)
    return {column: header.index(column) for column in columns}


def _read_parquet(file: Path, columns: Sequence[str], optional: Sequence[str]) -> Iterator[Row]:
    # Imported here: only Parquet needs it, and it is the slowest import of this package.
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(file) as table:
            present = table.schema_arrow.names
            for column in columns:
                if present.count(column) != 1:
                    raise DataError(file, None, f"one column '{column}'", f"the columns {', '.join(present)}")
            absent = dict.fromkeys(column for column in optional if column not in present)
            read = [*columns, *(column for column in optional if column in present)]
            for batch in table.iter_batches(PARQUET_BATCH_ROWS, columns=read):
                values = [batch.column(column).to_pylist() for column in read]
                for fields in zip(*values, strict=True):
                    number += 1
                    yield Row(file, number, absent | dict(zip(read, fields, strict=True)))
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(file, number + 1, "readable Parquet data", str(error), unit="row") from error
