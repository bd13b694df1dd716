"""Label ids and texts as string tables: one run of UTF-8 bytes and the offsets that cut it.

Start-up maps two files and parses nothing, however many labels there are.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray


def encode_strings(strings: Iterable[str]) -> tuple[bytes, NDArray[np.int64]]:
    """Lay strings end to end.

    Returns:
        Their UTF-8 bytes, and int64 offsets (L+1,): string i is ``bytes[offsets[i] : offsets[i + 1]]``.
    """
    encoded = [string.encode() for string in strings]
    offsets = np.zeros(len(encoded) + 1, dtype=np.int64)
    np.cumsum([len(piece) for piece in encoded], out=offsets[1:])
    return b"".join(encoded), offsets


class StringTable:
    """Strings by row, decoded when they are asked for."""

    def __init__(self, text: NDArray[np.uint8], offsets: NDArray[np.integer]) -> None:
        self._text = text.data
        self._offsets = offsets

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, row: int) -> str:
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} is outside 0..{len(self) - 1}")
        return str(self._text[self._offsets[row] : self._offsets[row + 1]], "utf-8")


class LabelTable:
    """Public ids and, where the data has them, texts of all labels by row."""

    def __init__(self, ids: StringTable, texts: StringTable | None) -> None:
        self._ids = ids
        self._texts = texts

    def __len__(self) -> int:
        return len(self._ids)

    def id(self, row: int) -> str:
        """The label's public id."""
        return self._ids[row]

    def text(self, row: int) -> str | None:
        """The label's text, or None when the bundle has no label texts."""
        return None if self._texts is None else self._texts[row]
