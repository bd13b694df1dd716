"""Label records: one JSON object a line, and the offsets at which the lines begin.

A record is written into an answer as it stands, so that answers cost a copy of bytes and no encoding. A table of hashes
finds a label by its id (`lookup`). Start-up maps files and parses nothing, however many labels there are.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.bundle import layout

LINE_END = b"}\n"
# What comes before the id in a record.
ID_KEY = b'{"id":'
# What the record of a label says that was added and never trained.
ZERO_SHOT = "zero_shot"


def encode_labels(
    ids: Sequence[str], texts: Sequence[str] | None, zero_shot: int = 0
) -> tuple[bytes, NDArray[np.int64]]:
    """Write the records of all labels.

    Args:
        ids: public id of each label.
        texts: text of each label, or None where the data has none.
        zero_shot: so many labels, the last, were added and never trained, as their records say.

    Returns:
        Lines like ``{"id":"a","text":"b"}``, and int64 offsets (L+1,): line i is ``lines[offsets[i]:offsets[i + 1]]``.
    """
    texts_or_none = [None] * len(ids) if texts is None else texts
    trained = len(ids) - zero_shot
    lines = [
        record_of(id_, text, zero_shot=row >= trained) + b"\n"
        for row, (id_, text) in enumerate(zip(ids, texts_or_none, strict=True))
    ]
    offsets = np.zeros(len(lines) + 1, dtype=np.int64)
    np.cumsum([len(line) for line in lines], out=offsets[1:])
    return b"".join(lines), offsets


def record_of(id_: str, text: str | None, *, zero_shot: bool = False) -> bytes:
    """One label's record, without the end of the line; ``zero_shot`` where it was added and never trained."""
    record: dict[str, str | bool] = {"id": id_}
    if text is not None:
        record["text"] = text
    if zero_shot:
        record[ZERO_SHOT] = True
    return json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode()


def write_labels(folder: Path, ids: Sequence[str], texts: Sequence[str] | None, zero_shot: int = 0) -> None:
    """Write the files of a bundle's labels; see `encode_labels`."""
    write_records(folder, *encode_labels(ids, texts, zero_shot))


def write_records(folder: Path, lines: bytes, offsets: NDArray[np.int64]) -> None:
    """Write the files of records, and the table that finds them; see `encode_labels`."""
    (folder / layout.LABELS).write_bytes(lines)
    np.save(folder / layout.LABEL_OFFSETS, offsets.astype(layout.offset_dtype(len(lines))))
    from service.bundle.lookup import hashed  # compiled: who never opens a bundle need not load the compiler

    np.save(folder / layout.LABEL_SLOTS, hashed(np.frombuffer(lines, dtype=np.uint8), offsets))


class LabelTable:
    """Public ids and, where the data has them, texts of all labels by row.

    Args:
        lines: bytes of the records.
        offsets: where each begins, and where the last one ends.
        slots: the table of `lookup`; None where no label can be found by its id.

    Attributes:
        slots: see above.
    """

    def __init__(
        self, lines: NDArray[np.uint8], offsets: NDArray[np.integer], slots: NDArray[np.uint32] | None = None
    ) -> None:
        self._arrays = lines, offsets
        # Of memory views single items cost a quarter of what they cost of arrays.
        self._lines = lines.data
        self._offsets = offsets.data
        self.slots = slots

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def open_records(self, rows: Iterable[int]) -> list[bytes]:
        """The records of labels without their closing braces, so that more can follow; rows must be in 0 .. L-1."""
        lines, offsets = self._lines, self._offsets
        return [lines[offsets[row] : offsets[row + 1] - len(LINE_END)].tobytes() for row in rows]

    def id(self, row: int) -> str:
        """The label's public id."""
        id_: str = self._record(row)["id"]
        return id_

    def text(self, row: int) -> str | None:
        """The label's text, or None when the bundle has no label texts."""
        return self._record(row).get("text")

    def find(self, ids: bytes) -> NDArray[np.int64]:
        """Rows of labels by their public ids, -1 for those that no label has; there must be slots.

        Args:
            ids: a list as compact JSON, each id in the one way in which records hold it (orjson and `encode_labels`
                write it so).
        """
        from service.bundle.lookup import find

        assert self.slots is not None
        return find(ids, *self._arrays, self.slots)

    def _record(self, row: int) -> dict[str, Any]:
        if not 0 <= row < len(self):
            raise IndexError(f"label row {row} is outside 0..{len(self) - 1}")
        record: dict[str, Any] = json.loads(self.open_records([row])[0] + LINE_END)
        return record
