"""Reading MACH's inverted lists from end to end, see `service.bundle.inverted`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.bundle import layout
from service.search.compiled import compiled


def first_fault(
    steps_N: NDArray[Any],
    partners_N: NDArray[Any],
    offsets_B: NDArray[np.int64],
    buckets_L: NDArray[Any],
    partners_L: NDArray[Any],
) -> str | None:
    """The file that contradicts the table of one repetition; building its lists anew takes many times as long.

    Args:
        steps_N: of all repetitions.
        partners_N: of all repetitions.
        offsets_B: where the repetition's lists begin, and the end (B + 1,); within bounds and never falling.
        buckets_L: each label's bucket.
        partners_L: each label's bucket in the partner.

    Returns:
        The name of the file of steps or of that of partners, or None.
    """
    far = np.iinfo(steps_N.dtype).max
    code: int = _first_fault(steps_N, partners_N, offsets_B, buckets_L, partners_L, far)
    return (None, layout.MACH_INVERTED_STEPS, layout.MACH_INVERTED_PARTNERS)[code]


@compiled
def _first_fault(
    steps_N: NDArray[Any],
    partners_N: NDArray[Any],
    offsets_B: NDArray[np.int64],
    buckets_L: NDArray[Any],
    partners_L: NDArray[Any],
    far: int,
) -> int:
    L, found = len(buckets_L), 0
    for bucket in range(len(offsets_B) - 1):
        label, last = 0, -1
        for place in range(offsets_B[bucket], offsets_B[bucket + 1]):
            label += steps_N[place]
            if steps_N[place] == far:
                continue
            if label <= last or label >= L or buckets_L[label] != bucket:
                return 1
            if partners_N[place] != partners_L[label]:
                return 2
            last = label
            found += 1
    # As many as there are, each in its own bucket and none twice: all of them.
    return 0 if found == L else 1
