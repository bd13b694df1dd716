"""Compiling all kernels before the first start: `python -m service.kernels`, where an image is built.

A kernel is otherwise compiled when it is first called for some types of arguments, which takes a start 2 to 8 seconds
longer. Compiled code is kept in the environment. numba reads it from a folder that it may write to alone, which an
image's may not be: so a server copies it to `NUMBA_CACHE_DIR`.

Code belongs to a processor: to that of this machine, or to `NUMBA_CPU_NAME` and `NUMBA_CPU_FEATURES`, which must then
be the same where the server runs; for another one kernels are compiled as if there were none.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

FOLDER = Path(sys.prefix) / "share" / "xmcserve" / "kernels"
VARIABLE = "NUMBA_CACHE_DIR"

# A kernel, and examples of its arguments.
Call = tuple[Any, tuple[Any, ...]]


def bring() -> None:
    """Copy the kernels to where numba looks for them, unless some are there; call it before the first is imported."""
    place = os.environ.get(VARIABLE)
    if place and FOLDER.is_dir() and not Path(place).exists():
        shutil.copytree(FOLDER, place)


def main() -> None:
    """Compile them, into the environment."""
    os.environ[VARIABLE] = str(FOLDER)
    started = time.perf_counter()
    for kernel, arguments in calls():
        kernel.compile(types(arguments))
    sys.stdout.write(f"{FOLDER}: kernels, compiled in {time.perf_counter() - started:.0f} s\n")


def types(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """What numba compiles a call for."""
    import numba

    typeof: Any = numba.typeof
    return tuple(typeof(argument) for argument in arguments)


def calls() -> Iterator[Call]:
    """Every kernel that is called from Python, for all types that bundles hold."""
    yield from _common_calls()
    yield from _label_calls()
    yield from _mach_calls()
    yield from _declare_calls()
    yield from _search_calls()
    yield from _reranking_calls()


def _common_calls() -> Iterator[Call]:
    from service.search.topk import _select

    yield _select, (_own("float32", 2), _own("int64", 2), _own("float32", 2))


def _label_calls() -> Iterator[Call]:
    from service.bundle import lookup
    from service.bundle.layout import OFFSETS

    lines, slots = _mapped("uint8", 1), _mapped("uint32", 1)
    yield lookup._fill, (lines, _own("int64", 1), _own("uint32", 1))  # who writes a bundle
    for offsets in OFFSETS:
        yield lookup._first_other, (lines, _mapped(offsets, 1), slots, 1, 1)
        yield lookup._find, (_mapped("uint8", 1), lines, _mapped(offsets, 1), slots, _own("int64", 1))


def _mach_calls() -> Iterator[Call]:
    from service.bundle.layout import OFFSETS
    from service.bundle.walk import _first_fault
    from service.decoders import pruned
    from service.decoders.buckets import _fold, _fold_rows

    for buckets in ("uint8", "uint16", "uint32"):
        lists, table = (_mapped(buckets, 1), _mapped(buckets, 1)), _mapped(buckets, 2)
        yield _fold, (_own("float32", 3), table, True, _own("float32", 2))
        yield _fold_rows, (_own("float32", 2), table, _own("int64", 1), True, _own("float32", 1))
        for offsets in OFFSETS:
            columns = _own(buckets, 1), _own(buckets, 1)
            yield _first_fault, (*lists, _mapped(offsets, 1), *columns, 1)
            scores = _own("float32", 2), _own("float32", 1)
            answers = _own("int32", 2), _own("int64", 1), _own("float32", 1)
            yield pruned.search, (*scores, table, *lists, _mapped(offsets, 2), 1, True, *answers)


def _declare_calls() -> Iterator[Call]:
    from service.bundle.layout import LABEL_ROWS, OFFSETS
    from service.decoders import nearest
    from service.search.votes import _fill_column, _fill_columns

    for offsets, labels in product(OFFSETS, LABEL_ROWS):
        votes = _mapped(offsets, 1), _mapped(labels, 1), _mapped("float32", 1)
        for fill, dimensions in ((_fill_column, 1), (_fill_columns, 2)):
            yield fill, (*votes, True, _own("float32", dimensions), _own("float32", dimensions))
        rows = nearest.Rows(*votes, _mapped("float32", 1), _mapped("int32", 1), True)
        floats = _own("float32", 1)
        ranks = _own("int32", 1)
        lists = nearest.Lists(floats, floats, _own(offsets, 1), ranks, ranks, floats, floats, 1)
        yield nearest.search, (floats, rows, lists, nearest.make_room(1), _own("int64", 1), floats)


def _search_calls() -> Iterator[Call]:
    from service.search.codes import _score
    from service.search.leading import _search
    from service.search.lists import choose_lists
    from service.search.products import _fill, _fill_rows

    floats, table, rows = _own("float32", 1), _own("float32", 2), _own("int64", 2)
    yield _search, (table, floats, floats, _mapped("float32", 1), table, _mapped("float32", 2), rows, table)
    yield choose_lists, (floats, _own("int64", 1), floats[0], 1)
    yield _fill_rows, (floats, _mapped("float32", 2), _own("int64", 1), floats)
    for matrix in (table, _mapped("float32", 2)):
        yield _fill, (table, matrix, table)
    for codes in ("int8", "int16"):
        yield _score, (_mapped(codes, 2), _mapped("float32", 1), table, rows, table)


def _reranking_calls() -> Iterator[Call]:
    from service.bundle.layout import LABEL_ROWS, OFFSETS
    from service.reranking import _ask

    floats, rows = _own("float32", 1), _own("int64", 1)
    # Half floats are widened when they are read.
    for offsets, labels, values in product(OFFSETS, LABEL_ROWS, (_mapped("float32", 1), floats, _mapped("int8", 1))):
        lists = _mapped(offsets, 1), _mapped(labels, 1), values, _mapped("float32", 1)
        yield _ask, (rows, rows, floats, *lists, 1, floats, _own("int64", 2), _own("float32", 2))


def _own(dtype: str, dimensions: int) -> Any:
    """An array like those that a process makes."""
    import numpy as np

    return np.ones((1,) * dimensions, dtype=dtype)


def _mapped(dtype: str, dimensions: int) -> Any:
    """An array like those that are mapped from files: read-only."""
    array = _own(dtype, dimensions)
    array.flags.writeable = False
    return array


if __name__ == "__main__":
    main()
