"""The best so far as a heap with the worst on top; compiled. Of equal scores the lower row is better.

Letters: K entries.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.search.compiled import compiled

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]
Scalar = Any  # of Python or of numpy: compiled code takes either

NOTHING = np.float32(-np.inf)


@compiled
def clear(ids_K: Rows, best_K: Floats) -> None:
    """Make a heap of entries that are worse than any row."""
    ids_K[:] = 0
    best_K[:] = NOTHING


@compiled
def make_heap(ids_K: Rows, best_K: Floats) -> None:
    """Put the worst on top, and let no entry be better than those below it."""
    for place in range(len(ids_K) // 2 - 1, -1, -1):
        _sink(ids_K, best_K, place, len(ids_K))


@compiled
def push(ids_K: Rows, best_K: Floats, row: Scalar, score: Scalar) -> None:
    """Replace the worst by a row that is better."""
    if score > best_K[0] or (score == best_K[0] and row < ids_K[0]):
        ids_K[0], best_K[0] = row, score
        _sink(ids_K, best_K, 0, len(ids_K))


@compiled
def sort_heap(ids_K: Rows, best_K: Floats) -> None:
    """Turn the heap into a list, best first."""
    for last in range(len(ids_K) - 1, 0, -1):
        ids_K[0], ids_K[last] = ids_K[last], ids_K[0]
        best_K[0], best_K[last] = best_K[last], best_K[0]
        _sink(ids_K, best_K, 0, last)


@compiled
def _sink(ids_K: Rows, best_K: Floats, place: int, size: int) -> None:
    """Let an entry of the heap change places with worse ones below it until there are none."""
    while 2 * place + 1 < size:
        below = 2 * place + 1
        if below + 1 < size and _is_worse(ids_K, best_K, below + 1, below):
            below += 1
        if not _is_worse(ids_K, best_K, below, place):
            return
        ids_K[place], ids_K[below] = ids_K[below], ids_K[place]
        best_K[place], best_K[below] = best_K[below], best_K[place]
        place = below


@compiled
def _is_worse(ids_K: Rows, best_K: Floats, one: int, other: int) -> bool:
    if best_K[one] != best_K[other]:
        return bool(best_K[one] < best_K[other])
    return bool(ids_K[one] > ids_K[other])
