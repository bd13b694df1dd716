"""Reading MACH's inverted lists from end to end, see `service.bundle.inverted`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.compiled import compiled


def lists_hold(
    steps_N: NDArray[Any],
    partners_N: NDArray[Any],
    offsets_B: NDArray[np.int64],
    buckets_L: NDArray[Any],
    partners_L: NDArray[Any],
) -> bool:
    """Whether the lists of one repetition are what the table says; building them anew takes many times as long.

    Args:
        steps_N: of all repetitions.
        partners_N: of all repetitions.
        offsets_B: where the repetition's lists begin, and the end (B + 1,); within bounds and never falling.
        buckets_L: each label's bucket.
        partners_L: each label's bucket in the partner.
    """
    return bool(_lists_hold(steps_N, partners_N, offsets_B, buckets_L, partners_L, np.iinfo(steps_N.dtype).max))


@compiled
def _lists_hold(
    steps_N: NDArray[Any],
    partners_N: NDArray[Any],
    offsets_B: NDArray[np.int64],
    buckets_L: NDArray[Any],
    partners_L: NDArray[Any],
    far: int,
) -> bool:
    L, found = len(buckets_L), 0
    for bucket in range(len(offsets_B) - 1):
        label, last = 0, -1
        for place in range(offsets_B[bucket], offsets_B[bucket + 1]):
            label += steps_N[place]
            if steps_N[place] == far:
                continue
            if label <= last or label >= L or buckets_L[label] != bucket or partners_N[place] != partners_L[label]:
                return False
            last = label
            found += 1
    # As many as there are, each in its own bucket and none twice: all of them.
    return found == L
