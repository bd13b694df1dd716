"""Sparse matrices with indices as narrow as they can be."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

MOST_NARROW = np.iinfo(np.int32).max


def narrow_csr(
    data: NDArray[Any], indices: NDArray[np.integer], indptr: NDArray[np.integer], shape: tuple[int, int]
) -> csr_array:
    """A CSR matrix with 32-bit indices where they are enough.

    SciPy's sparse arrays keep 64-bit indices, if either array has them: half as much memory again for float32 values.
    """
    width = np.int32 if max(len(data), *shape) <= MOST_NARROW else np.int64
    return csr_array((data, indices.astype(width, copy=False), indptr.astype(width, copy=False)), shape=shape)
