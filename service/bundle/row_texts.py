"""Texts of DECLARE's distinct training rows, for explanations: a JSON string or null a line, and where each begins.

The files are mapped: a text is read when an explanation names its row, and never before.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.bundle import layout

# An explanation names dozens of rows for each label: of each, so many characters.
MOST_CHARACTERS = 200


def write_row_texts(folder: Path, texts: Iterable[str | None]) -> None:
    """Write the files of the texts, in the order of the rows; None for a row that has none.

    Of a longer text than `MOST_CHARACTERS` the beginning is kept, with "…" as the last of so many.
    """
    lines = [json.dumps(_beginning(text), ensure_ascii=False).encode() + b"\n" for text in texts]
    offsets = np.zeros(len(lines) + 1, dtype=np.int64)
    np.cumsum([len(line) for line in lines], out=offsets[1:])
    (folder / layout.DECLARE_TEXTS).write_bytes(b"".join(lines))
    np.save(folder / layout.DECLARE_TEXT_OFFSETS, offsets.astype(layout.offset_dtype(int(offsets[-1]))))


def _beginning(text: str | None) -> str | None:
    if text is None or len(text) <= MOST_CHARACTERS:
        return text
    return text[: MOST_CHARACTERS - 1] + "…"


class RowTexts:
    """Texts by distinct training row.

    Args:
        lines: bytes of the texts, which `line_files.check_row_texts` has passed with the offsets.
        offsets: where each begins, and where the last one ends.
    """

    def __init__(self, lines: NDArray[np.uint8], offsets: NDArray[np.integer]) -> None:
        self._lines, self._offsets = lines, offsets

    def __getitem__(self, row: int) -> str | None:
        """The text of a row, or None where it has none."""
        text: str | None = json.loads(bytes(self._lines[self._offsets[row] : self._offsets[row + 1]]))
        return text
