"""Checks of files of lines, labels' records and rows' texts, against the arrays that cut them."""

from __future__ import annotations

import json

import numpy as np
from numpy.typing import NDArray

from service.bundle import layout
from service.bundle.contents import require
from service.bundle.labels import ID_KEY, LINE_END, ZERO_SHOT
from service.errors import BundleError
from service.processors import at_once

# Ids that one processor looks for before it asks for more to do.
FOUND_AT_ONCE = 1 << 16


def check_labels(lines: NDArray[np.uint8], offsets: NDArray[np.integer], has_texts: bool) -> None:
    """Check that offsets cut valid UTF-8 into lines that look like records; only the first is read.

    Args:
        lines: bytes of the records.
        offsets: where each begins, and the end.
        has_texts: whether the manifest says that records have texts.

    Raises:
        BundleError: they do not.
    """
    name = layout.LABEL_OFFSETS
    _check_cuts(lines, offsets, layout.LABELS, name, least=len(LINE_END) + 1)
    begin = bool((lines[offsets[:-1]] == ord("{")).all())
    end = all(bool((lines[offsets[1:] - back] == byte).all()) for back, byte in zip((2, 1), LINE_END, strict=True))
    require(begin and end, name, f"offsets at the lines of {layout.LABELS}", "one within a line")
    _check_utf_8(lines, layout.LABELS)
    _check_record(bytes(lines[: offsets[1]]), has_texts)


def check_row_texts(lines: NDArray[np.uint8], offsets: NDArray[np.integer], rows: int) -> None:
    """Check that offsets cut valid UTF-8 into so many lines that look like JSON strings or nulls.

    Args:
        lines: bytes of the texts.
        offsets: where each begins, and the end.
        rows: distinct training rows of the bundle.

    Raises:
        BundleError: they do not.
    """
    file, name = layout.DECLARE_TEXTS, layout.DECLARE_TEXT_OFFSETS
    require(offsets.size == rows + 1, name, f"offsets of {rows} rows and an end", f"{offsets.size} offsets")
    _check_cuts(lines, offsets, file, name, least=len('""\n'))
    firsts, lasts, ends = lines[offsets[:-1]], lines[offsets[1:] - 2], lines[offsets[1:] - 1]
    quoted = (firsts == ord('"')) & (lasts == ord('"'))
    null = (firsts == ord("n")) & (lasts == ord("l")) & (np.diff(offsets) == len("null\n"))
    holds = bool((quoted | null).all()) and bool((ends == ord("\n")).all())
    require(holds, name, f"offsets at the lines of {file}", "one within a line")
    _check_utf_8(lines, file)


def check_slots(lines: NDArray[np.uint8], offsets: NDArray[np.integer], slots: NDArray[np.uint32]) -> None:
    """Check that every label is found by its id, so that no two have the same.

    Args:
        lines: bytes of the records.
        offsets: that `check_labels` has passed with these lines.
        slots: the table of `lookup`.

    Raises:
        BundleError: one is not.
    """
    from service.bundle.lookup import first_other

    keyed = bool((np.diff(offsets) > len(ID_KEY)).all()) and all(
        bool((lines[offsets[:-1] + place] == byte).all()) for place, byte in enumerate(ID_KEY)
    )
    require(keyed, layout.LABELS, f"records that begin with {ID_KEY.decode()}", "others")
    count = len(offsets) - 1
    parts = [(low, min(count, low + FOUND_AT_ONCE)) for low in range(0, count, FOUND_AT_ONCE)]
    others = at_once(lambda part: first_other(lines, offsets, slots, *part), parts)
    if (other := next((other for other in others if other is not None), None)) is not None:
        row, found = other
        require(found < 0, layout.LABELS, "every id once", f"that of row {found} in row {row} as well")
        raise BundleError(f"{layout.LABEL_SLOTS}: expected row {row} at the hash of its id, found none")


def _check_cuts(lines: NDArray[np.uint8], offsets: NDArray[np.integer], file: str, name: str, *, least: int) -> None:
    """Offsets must cut all of a file into lines of at least so many bytes."""
    require(offsets[0] == 0, name, "a first offset of 0", f"{offsets[0]}")
    require(
        bool((np.diff(offsets) >= least).all()), name, f"offsets of lines of {least} bytes and more", "shorter ones"
    )
    require(offsets[-1] == lines.size, name, f"a last offset of {lines.size}, the size of {file}", f"{offsets[-1]}")


def _check_utf_8(lines: NDArray[np.uint8], file: str) -> None:
    try:
        str(lines.data, "utf-8")
    except UnicodeDecodeError as error:
        raise BundleError(f"{file}: expected UTF-8, found {error.reason} at byte {error.start}") from error


def _check_record(line: bytes, has_texts: bool) -> None:
    expected = {"id": str, "text": str} if has_texts else {"id": str}
    try:
        found = {key: type(value) for key, value in json.loads(line).items() if key != ZERO_SHOT}
    except ValueError as error:
        raise BundleError(f"{layout.LABELS}: expected a JSON object a line, found: {error}") from error
    require(found == expected, layout.LABELS, f"records with strings {', '.join(expected)}", f"{', '.join(found)}")
