"""Which labels may be answered: a bit for each, so that conditions of any kind join in one pass over few bytes.

Letters: L labels, W bytes of a bitmap, N rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.bundle import layout

Bits = NDArray[np.uint8]
Rows = NDArray[np.int64]

_BYTE = 255


@dataclass(frozen=True)
class Allowed:
    """Labels that may be answered.

    Attributes:
        bits_W: label r has bit r % 8, counted from the lowest, of byte r // 8; bits beyond the last label are 0.
        count: of labels.
    """

    bits_W: Bits
    count: int

    @classmethod
    def of_bits(cls, bits_W: Bits) -> Allowed:
        """Those whose bits are set."""
        return cls(bits_W, int(np.bitwise_count(bits_W).sum(dtype=np.int64)))

    def within(self, other: Allowed | None, label_count: int) -> Allowed:
        """Those that both allow, of so many labels, which may be more than there were.

        Args:
            other: of so many labels; None: it allows all.
            label_count: L.
        """
        bits_W = widened(self.bits_W, label_count)
        if other is None:
            return self if bits_W is self.bits_W else Allowed(bits_W, self.count)
        return Allowed.of_bits(bits_W & other.bits_W)

    def keeps(self, rows: Rows) -> NDArray[np.bool_]:
        """Whether each of some labels, in any shape, is allowed."""
        kept: NDArray[np.bool_] = (self.bits_W[rows >> 3] >> (rows & 7).astype(np.uint8) & 1).astype(np.bool_)
        return kept

    def rows(self) -> Rows:
        """All of them, rising, int64 (count,)."""
        filled = np.flatnonzero(self.bits_W)
        places, bits = np.nonzero(np.unpackbits(self.bits_W[filled], bitorder="little").reshape(-1, 8))
        rows: Rows = filled[places] * 8 + bits
        return rows


def bits_of(rows_N: Rows, label_count: int) -> Bits:
    """The bitmap of some labels, which may be named more than once, uint8 (W,)."""
    bits_W = np.zeros(layout.bitmap_bytes(label_count), dtype=np.uint8)
    np.bitwise_or.at(bits_W, rows_N >> 3, np.left_shift(1, rows_N & 7).astype(np.uint8))
    return bits_W


def widened(bits_W: Bits, label_count: int) -> Bits:
    """A bitmap of fewer labels with the bits of the others, 0."""
    missing = layout.bitmap_bytes(label_count) - len(bits_W)
    return np.pad(bits_W, (0, missing)) if missing else bits_W


def all_bits(label_count: int) -> Bits:
    """The bitmap of all labels."""
    bits_W = np.full(layout.bitmap_bytes(label_count), _BYTE, dtype=np.uint8)
    bits_W[-1] >>= -label_count % 8
    return bits_W
