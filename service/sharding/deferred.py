"""Encoding a batch beside each shard, where what the encoder gives is too much to send.

MACH's encoder gives a number for each bucket of each repetition: of 16 repetitions of 131,072 buckets 8 MB for a query,
to each shard, of a text that has some hundred bytes. Shards hold the encoder that their head has. So the head sends
what the encoder reads, and each shard computes what the head would have: the same numbers, from the same graph.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from service.bags import Bag
from service.encoder import Encoded, inputs_of

FLOAT_BYTES = 4
# Outputs of a query that are larger are not sent: 32 of them are 2 MB, 2 ms at ten gigabits a second for each shard,
# where asking a shard takes 4.
MOST_SENT_BYTES = 1 << 16


def is_deferred(outputs: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether shards encode.

    Args:
        outputs: of the encoder, that their decoder reads: their shapes after Q.
    """
    return FLOAT_BYTES * sum(map(math.prod, outputs.values())) > MOST_SENT_BYTES


class DeferredEncoder:
    """Gives what the encoder reads in place of what it makes of that; see ``QueryEncoder``."""

    def __init__(self) -> None:
        self.device = "cpu"
        self.providers = ["CPUExecutionProvider"]

    def run(self, bags: Sequence[Bag]) -> Encoded:
        """See ``QueryEncoder``."""
        return Encoded(*inputs_of(bags))

    def outputs_of(self, encoded: Encoded, query: int) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """See ``QueryEncoder``."""
        arrays = encoded.rows(query)
        return arrays, arrays
