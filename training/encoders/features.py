"""Vectors of texts that a frozen transformer would read again and again: computed once, found by their tokens.

They live in memory while a model is trained, are no part of its weights, and are computed anew when a run is continued:
in the same order, so to the same bits.

Letters: N rows, Q queries, D dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from training.data.batches import Bags


class FeatureTable:
    """A vector for each row of token ids that was added; rows of the same tokens share the first one's."""

    def __init__(self) -> None:
        self._places: dict[bytes, int] = {}
        self._parts: list[Tensor] = []

    def add(self, bags: Bags, vectors_ND: Tensor) -> None:
        """Keep the rows' vectors, on the CPU."""
        start = sum(map(len, self._parts))
        for place, key in enumerate(_keys(bags), start):
            self._places.setdefault(key, place)
        self._parts.append(vectors_ND.cpu())

    def find(self, bags: Bags) -> Tensor | None:
        """The rows' vectors (Q, D) where the rows are, or None if one of them was never added."""
        places = [self._places.get(key) for key in _keys(bags)]
        if None in places:
            return None
        if len(self._parts) > 1:
            self._parts = [torch.cat(self._parts)]
        return self._parts[0][torch.tensor(places, dtype=torch.int64)].to(bags.ids.device)


def _keys(bags: Bags) -> Iterator[bytes]:
    ids = bags.ids.cpu().numpy().astype(np.int32)
    return (ids[low:high].tobytes() for low, high in pairwise(bags.offsets.tolist()))
