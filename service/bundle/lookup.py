"""Finding labels by their ids: a table of hashes beside the records; compiled.

A record begins with its id as a JSON string, and what is looked for is written in the same way, so bytes are compared
and nothing is decoded. The quote that ends a string stands in it with a backslash alone: none is the beginning of
another. The hash of a string's bytes, quotes included (FNV-1a with 64 bits, its halves joined by exclusive or), says at
which slot to begin; slots are looked at one after the other until one holds the label or none. A slot holds a label's
row plus 1, or 0.

A binary search through 1,000,000 sorted records waits for memory 60 times, this 3 or 4 times.

Letters: L labels, S slots, N ids.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.bundle import layout
from service.bundle.labels import ID_KEY
from service.search.compiled import compiled

_START = len(ID_KEY)
_QUOTE, _BACKSLASH, _LIST_END = ord('"'), ord("\\"), ord("]")
# Of each id in a list: two quotes, and what parts it from the next or ends the list.
_LEAST_BYTES = 3
_BASIS, _PRIME, _HALF = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3), np.uint64(32)

Bytes = NDArray[np.uint8]
Integers = NDArray[Any]
Slots = NDArray[np.uint32]


def hashed(lines: Bytes, offsets: Integers) -> Slots:
    """The table of some labels, uint32 (S,); of labels with equal ids it finds the first.

    Args:
        lines: bytes of the records.
        offsets: where each begins, and the end.
    """
    slots_S = np.zeros(layout.slot_count(len(offsets) - 1), dtype=np.uint32)
    _fill(lines, offsets, slots_S)
    return slots_S


def find(ids: bytes, lines: Bytes, offsets: Integers, slots_S: Slots) -> NDArray[np.int64]:
    """Rows of the labels with these ids, -1 where there is none, int64 (N,).

    Args:
        ids: a list of strings as compact JSON.
        lines: bytes of the records.
        offsets: where each begins, and the end.
        slots_S: the table.
    """
    rows_N = np.empty(len(ids) // _LEAST_BYTES, dtype=np.int64)
    return rows_N[: _find(np.frombuffer(ids, dtype=np.uint8), lines, offsets, slots_S, rows_N)]


def first_other(lines: Bytes, offsets: Integers, slots_S: Slots, low: int, high: int) -> tuple[int, int] | None:
    """The first row from low to (not including) high that is not found by its id, and what is found instead."""
    row: int = _first_other(lines, offsets, slots_S, low, high)
    if row < 0:
        return None
    record = lines[offsets[row] + _START : offsets[row + 1]]
    return row, int(_row(record[: _id_end(record, 0)], lines, offsets, slots_S))


@compiled
def _fill(lines: Bytes, offsets: Integers, slots_S: Slots) -> None:
    for row in range(len(offsets) - 1):
        record = lines[offsets[row] + _START : offsets[row + 1]]
        slot = _hash(record[: _id_end(record, 0)]) & np.uint64(len(slots_S) - 1)
        while slots_S[slot]:
            slot = (slot + np.uint64(1)) & np.uint64(len(slots_S) - 1)
        slots_S[slot] = row + 1


@compiled
def _find(ids: Bytes, lines: Bytes, offsets: Integers, slots_S: Slots, rows_N: NDArray[np.int64]) -> int:
    """Fill in the rows: how many there are."""
    count, place = 0, 1
    while ids[place] != _LIST_END:
        end = _id_end(ids, place)
        rows_N[count] = _row(ids[place:end], lines, offsets, slots_S)
        count += 1
        if ids[end] == _LIST_END:
            break
        place = end + 1
    return count


@compiled
def _first_other(lines: Bytes, offsets: Integers, slots_S: Slots, low: int, high: int) -> int:
    for row in range(low, high):
        record = lines[offsets[row] + _START : offsets[row + 1]]
        if _row(record[: _id_end(record, 0)], lines, offsets, slots_S) != row:
            return row
    return -1


@compiled
def _row(id_: Bytes, lines: Bytes, offsets: Integers, slots_S: Slots) -> Any:
    slot, L = _hash(id_) & np.uint64(len(slots_S) - 1), len(offsets) - 1
    for _ in range(len(slots_S)):
        row = np.int64(slots_S[slot]) - 1
        if row < 0 or row >= L:
            break
        if _begins(lines[offsets[row] + _START : offsets[row + 1]], id_):
            return row
        slot = (slot + np.uint64(1)) & np.uint64(len(slots_S) - 1)
    return np.int64(-1)


@compiled
def _hash(id_: Bytes) -> Any:
    number = _BASIS
    for byte in id_:
        number = (number ^ np.uint64(byte)) * _PRIME
    return number ^ (number >> _HALF)


@compiled
def _id_end(text: Bytes, start: int) -> int:
    """Where the string that begins at a quote ends; where it does not end, the end of the text."""
    end = start + 1
    while end < len(text) and text[end] != _QUOTE:
        end += 2 if text[end] == _BACKSLASH else 1
    return min(end + 1, len(text))


@compiled
def _begins(record: Bytes, id_: Bytes) -> bool:
    place, end = 0, len(id_)
    if len(record) >= end:
        while place < end and record[place] == id_[place]:
            place += 1
    return place == end
