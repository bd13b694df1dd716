"""Sparse linear classifiers, one for each label, from few rows each.

A label's classifier minimises ½ |w|² + Σ c_i max(0, 1 - y_i (w · x_i - 1))²: a support vector machine with squared
hinge loss whose bias is fixed at -1. A row that shares no word with a classifier then costs nothing, so such rows can
be left out. Solved by dual coordinate descent: Hsieh et al., "A Dual Coordinate Descent Method for Large-scale Linear
SVM", ICML 2008, algorithm 1. One classifier a label, small weights dropped: Babbar and Schölkopf, "DiSMEC", WSDM 2017.

Letters: N rows, V words or features, L labels, M rows of one label's problem.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_array, csr_array

from training import memory
from training.data.sparse import narrow_csr

MOST_PASSES = 20
# Largest projected gradient at which a classifier is done, as in LIBLINEAR.
TOLERANCE = 0.1
LABELS_AT_ONCE = 256

Found = tuple[NDArray[np.int32], NDArray[np.float32]]


def fit_classifiers(
    inputs_NV: csr_array, targets_NL: csr_array, negatives_NL: csr_array, *, cost: float, least_weight: float, seed: int
) -> csr_array:
    """Train a classifier for every label that has a positive row.

    Args:
        inputs_NV: rows of unit length, float32.
        targets_NL: relevances; a row counts as positive for a label by its relevance.
        negatives_NL: the rows that each label is told from; those that are positive for it are left out.
        cost: of a margin that is missed, for a row of relevance 1.
        least_weight: magnitude below which a weight is dropped.
        seed: of the order in which rows are visited.

    Returns:
        float32 CSR (V, L), whose products with rows are 1 above the margins.
    """
    positives, negatives = targets_NL.tocsc(), negatives_NL.tocsc()
    label_count, width = positives.shape[1], inputs_NV.shape[1]
    indptr = inputs_NV.indptr.astype(np.int64)

    def fit_some(first: int) -> list[Found]:
        weights_V = np.zeros(width, dtype=np.float32)
        found = []
        for label in range(first, min(label_count, first + LABELS_AT_ONCE)):
            rows_M, costs_M, positive_count = _problem(positives, negatives, label, cost)
            _descend(
                rows_M,
                costs_M,
                positive_count,
                indptr,
                inputs_NV.indices,
                inputs_NV.data,
                weights_V,
                (seed + label) % 2**31,
            )
            found.append(_taken(rows_M, indptr, inputs_NV.indices, weights_V, least_weight))
        return found

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        parts = [part for some in pool.map(fit_some, range(0, label_count, LABELS_AT_ONCE)) for part in some]
    return _by_word(parts, width)


def _by_word(parts: list[Found], width: int) -> csr_array:
    """Classifiers as columns. Empties the list: weights are held twice at most."""
    offsets = np.cumsum([0, *(len(ids) for ids, _ in parts)], dtype=np.int64)
    ids, values = np.empty(offsets[-1], dtype=np.int32), np.empty(offsets[-1], dtype=np.float32)
    for label in reversed(range(len(parts))):
        place = slice(offsets[label], offsets[label + 1])
        ids[place], values[place] = parts.pop()
    memory.return_freed()
    by_word = narrow_csr(values, ids, offsets, (len(offsets) - 1, width)).T.tocsr()
    by_word.sort_indices()
    return by_word


def _problem(
    positives: csc_array, negatives: csc_array, label: int, cost: float
) -> tuple[NDArray[np.int64], NDArray[np.float64], int]:
    """The rows of a label's problem, positive ones first, what each costs, and how many are positive."""
    place = slice(positives.indptr[label], positives.indptr[label + 1])
    own, relevances = positives.indices[place], positives.data[place]
    if not len(own):
        return np.empty(0, dtype=np.int64), np.empty(0), 0
    others = negatives.indices[negatives.indptr[label] : negatives.indptr[label + 1]]
    others = np.setdiff1d(others, own)
    costs_M = np.concatenate([cost * relevances, np.full(len(others), cost)])
    return np.concatenate([own, others]).astype(np.int64), costs_M, len(own)


@numba.njit(nogil=True)
def _descend(
    rows_M: NDArray[np.int64],
    costs_M: NDArray[np.float64],
    positives: int,
    indptr: NDArray[np.int64],
    ids: NDArray[np.int32],
    values: NDArray[np.float32],
    weights_V: NDArray[np.float32],
    seed: int,
) -> None:
    """Turn weights of 0 into a classifier."""
    np.random.seed(seed)
    M = len(rows_M)
    multipliers_M, curvatures_M = np.zeros(M), np.empty(M)
    for m, row in enumerate(rows_M):
        squares = 0.0
        for place in range(indptr[row], indptr[row + 1]):
            squares += values[place] * values[place]
        curvatures_M[m] = squares + 0.5 / costs_M[m]
    order = np.arange(M)
    for _ in range(MOST_PASSES):
        steepest = 0.0
        np.random.shuffle(order)
        for turn in range(M):
            m = order[turn]
            low, high = indptr[rows_M[m]], indptr[rows_M[m] + 1]
            margin = -1.0
            for place in range(low, high):
                margin += weights_V[ids[place]] * values[place]
            side = 1.0 if m < positives else -1.0
            gradient = side * margin - 1.0 + 0.5 / costs_M[m] * multipliers_M[m]
            if multipliers_M[m] == 0.0 and gradient >= 0.0:
                continue
            steepest = max(steepest, abs(gradient))
            risen = max(multipliers_M[m] - gradient / curvatures_M[m], 0.0)
            step = side * (risen - multipliers_M[m])
            multipliers_M[m] = risen
            for place in range(low, high):
                weights_V[ids[place]] += step * values[place]
        if steepest < TOLERANCE:
            break


@numba.njit(nogil=True)
def _taken(
    rows_M: NDArray[np.int64],
    indptr: NDArray[np.int64],
    ids: NDArray[np.int32],
    weights_V: NDArray[np.float32],
    least_weight: float,
) -> Found:
    """The weights that are large enough, in any order; all are 0 afterwards."""
    most = (indptr[rows_M + 1] - indptr[rows_M]).sum()
    kept_ids, kept_values = np.empty(most, np.int32), np.empty(most, np.float32)
    count = 0
    for row in rows_M:
        for place in range(indptr[row], indptr[row + 1]):
            weight = weights_V[ids[place]]
            weights_V[ids[place]] = 0.0
            if abs(weight) >= least_weight and weight != 0.0:
                kept_ids[count], kept_values[count] = ids[place], weight
                count += 1
    return kept_ids[:count].copy(), kept_values[:count].copy()
