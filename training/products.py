"""Products of sparse rows with all classifiers: of given labels, and the largest of all others.

Letters: N rows, V words or features, L labels, K given labels, C given labels and nominees.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from training.metrics import PADDING

ROWS_AT_ONCE = 512


def products(
    rows_NV: csr_array, weights_VL: csr_array, given_NK: NDArray[np.int64], nominees: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The products of some labels, and which others have the largest ones.

    Args:
        rows_NV: float32.
        weights_VL: float32, a classifier a column.
        given_NK: distinct labels of each row, padded with -1.
        nominees: labels wanted beside them, whose products must be above 0.

    Returns:
        Labels int64 (N, K + nominees): the given ones, then the nominees, largest product first, ties by label row,
        padded with -1; and their products float32, 0 for padding.
    """
    labels_NC = np.pad(given_NK, ((0, 0), (0, nominees)), constant_values=PADDING)
    products_NC = np.zeros(labels_NC.shape, dtype=np.float32)
    weights = (weights_VL.indptr.astype(np.int64), weights_VL.indices, weights_VL.data)
    indptr, K = rows_NV.indptr.astype(np.int64), given_NK.shape[1]

    def fill(first: int) -> None:
        last = min(first + ROWS_AT_ONCE, len(labels_NC))
        sums_L = np.zeros(weights_VL.shape[1], dtype=np.float32)
        _fill(first, last, indptr, rows_NV.indices, rows_NV.data, *weights, K, sums_L, labels_NC, products_NC)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(fill, range(0, len(labels_NC), ROWS_AT_ONCE)))
    return labels_NC, products_NC


@numba.njit(nogil=True)
def _fill(
    first: int,
    last: int,
    indptr: NDArray[np.int64],
    ids: NDArray[np.int32],
    values: NDArray[np.float32],
    weight_indptr: NDArray[np.int64],
    labels: NDArray[np.int32],
    weights: NDArray[np.float32],
    K: int,
    sums_L: NDArray[np.float32],
    labels_NC: NDArray[np.int64],
    products_NC: NDArray[np.float32],
) -> None:
    for row in range(first, last):
        for place in range(indptr[row], indptr[row + 1]):
            word, value = ids[place], values[place]
            for entry in range(weight_indptr[word], weight_indptr[word + 1]):
                sums_L[labels[entry]] += value * weights[entry]
        labels_C, products_C = labels_NC[row], products_NC[row]
        for rank in range(K):
            if labels_C[rank] != PADDING:
                products_C[rank] = sums_L[labels_C[rank]]
        for rank in range(K):
            if labels_C[rank] != PADDING:
                sums_L[labels_C[rank]] = 0
        lowest = len(labels_C) - 1
        for label in range(len(sums_L) if lowest >= K else 0):
            product = sums_L[label]
            if product <= products_C[lowest]:
                continue
            rank = lowest
            while rank > K and products_C[rank - 1] < product:
                products_C[rank], labels_C[rank] = products_C[rank - 1], labels_C[rank - 1]
                rank -= 1
            products_C[rank], labels_C[rank] = product, label
        sums_L[:] = 0
