"""Named groups of labels out of a file: of which labels a filter may be made by one word, for example a market.

Letters: G groups, W bytes of a bitmap.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from service.bundle import layout
from service.bundle.manifest import GroupName
from service.bundle.strict import Strict
from training.data.files import DataError, excerpt, read_lines

CSV_HEADER = ["id", "group"]
_NAME: TypeAdapter[str] = TypeAdapter(GroupName)


class _Record(Strict):
    """A label and the groups it is in."""

    id: str
    groups: tuple[str, ...]


@dataclass(frozen=True)
class Groups:
    """Groups of a bundle's labels.

    Attributes:
        sizes: labels in each, by name, in the order of the names' code points.
        bits_GW: their bitmaps in that order, see `service.filters.allowed`.
    """

    sizes: dict[str, int]
    bits_GW: NDArray[np.uint8]


def read_groups(file: Path, label_ids: Sequence[str]) -> Groups:
    """Read a file of groups: CSV with a line ``id,group`` above, or JSON lines like ``{"id": "a", "groups": ["x"]}``.

    Args:
        file: UTF-8, gzip or not; its first character tells which of both it is. No line may end within an id.
        label_ids: of the bundle.

    Raises:
        DataError: the file cannot be read, a line is wrong or names an unknown label, or there are no groups; the
            sentence says where.
    """
    rows = {id_: row for row, id_ in enumerate(label_ids)}
    members: dict[str, list[int]] = {}
    for line, id_, names in _records(file):
        if id_ not in rows:
            raise DataError(file, line, "the id of a label of the artifact", excerpt(id_))
        for name in names:
            members.setdefault(_checked(file, line, name), []).append(rows[id_])
    if not members:
        raise DataError(file, None, "at least one group", "none")
    names = sorted(members)
    bits_GL = np.zeros((len(names), 8 * layout.bitmap_bytes(len(label_ids))), dtype=np.bool_)
    for bits_L, name in zip(bits_GL, names, strict=True):
        bits_L[members[name]] = True
    sizes = dict(zip(names, bits_GL.sum(axis=1).tolist(), strict=True))
    return Groups(sizes, np.packbits(bits_GL, axis=1, bitorder="little"))


def _records(file: Path) -> Iterator[tuple[int, str, Sequence[str]]]:
    """Number of the line, label and groups, record by record."""
    lines = [(number, line) for number, line in read_lines(file) if line.strip()]
    return _json_records(file, lines) if lines and lines[0][1].startswith("{") else _csv_records(file, lines)


def _json_records(file: Path, lines: Sequence[tuple[int, str]]) -> Iterator[tuple[int, str, Sequence[str]]]:
    for number, line in lines:
        try:
            record = _Record.model_validate_json(line)
        except ValidationError as error:
            raise DataError(file, number, 'an object like {"id": "a", "groups": ["x", "y"]}', excerpt(line)) from error
        yield number, record.id, record.groups


def _csv_records(file: Path, lines: Sequence[tuple[int, str]]) -> Iterator[tuple[int, str, Sequence[str]]]:
    for place, (number, line) in enumerate(lines):
        cells = next(csv.reader([line]))
        if place == 0 and cells != CSV_HEADER:
            raise DataError(file, number, "the header id,group, or JSON lines", excerpt(line))
        if len(cells) != len(CSV_HEADER):
            raise DataError(file, number, "an id and a group", excerpt(line))
        if place > 0:
            yield number, cells[0], cells[1:]


def _checked(file: Path, line: int, name: str) -> str:
    try:
        return _NAME.validate_python(name)
    except ValidationError as error:
        raise DataError(file, line, "a group's name of 1 to 128 characters", excerpt(name)) from error
