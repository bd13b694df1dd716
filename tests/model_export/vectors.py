"""Vectors to find, for tests of indexes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def unit_vectors(count: int, seed: int = 0, dimension: int = 24) -> NDArray[np.float32]:
    """In directions that are all as likely: hard to find by any index."""
    drawn = np.random.default_rng(seed).standard_normal((count, dimension)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
