"""Which version of a model answers a request."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from service.models.model import Model


class Split:
    """Versions that share requests.

    Args:
        shares: versions and their weights, at least one above 0; those with 0 get nothing.
    """

    def __init__(self, shares: Sequence[tuple[Model, float]]) -> None:
        answering = [(model, weight) for model, weight in shares if weight > 0]
        self._models = [model for model, _ in answering]
        self._bounds = list(accumulate(weight for _, weight in answering))

    def draw(self) -> Model:
        """The version that answers the next request."""
        models = self._models
        if len(models) == 1:
            return models[0]
        return models[bisect_right(self._bounds, random.random() * self._bounds[-1], hi=len(models) - 1)]
