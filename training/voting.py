"""How training rows vote for the labels of a query: the second half of DECLARE.

Rows with the same labels are the same neighbour. They are stored once with their number, which shrinks what is searched
and served, and changes nothing: among rows at the same distance, rows with the same labels stand together, at the place
of the first of them.

Letters: Q queries, N training rows, G distinct rows, L labels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array


def merge_duplicates(matrix_NL: csr_array) -> tuple[csr_array, NDArray[np.int64]]:
    """Find the distinct rows of a matrix, labels and their relevances alike.

    Args:
        matrix_NL: rows of labels; entries of 0 count as absent.

    Returns:
        The distinct rows (G, L) in the order of their first occurrence, sorted and without zeros; and which of them
        each row is, int64 (N,).
    """
    matrix_NL = matrix_NL.copy()
    matrix_NL.eliminate_zeros()
    matrix_NL.sort_indices()
    bounds = zip(matrix_NL.indptr[:-1].tolist(), matrix_NL.indptr[1:].tolist(), strict=True)
    firsts: dict[tuple[bytes, bytes], int] = {}
    groups_N = np.fromiter(
        (
            firsts.setdefault((matrix_NL.indices[low:high].tobytes(), matrix_NL.data[low:high].tobytes()), len(firsts))
            for low, high in bounds
        ),
        dtype=np.int64,
        count=matrix_NL.shape[0],
    )
    _, rows_G = np.unique(groups_N, return_index=True)
    return matrix_NL[rows_G], groups_N


def vote(
    similarities_QG: NDArray[np.floating],
    votes_GL: csr_array,
    counts_G: NDArray[np.integer],
    neighbours: int,
    temperature: float = 0.0,
) -> NDArray[np.float32]:
    """Label scores: each of the nearest rows votes for its labels.

    At a temperature t of 0, a row's weight is its similarity s. Above, weights are exp(s / t), divided by their sum
    over the neighbours: the nearest rows then count for more, and a label's score is its share of the vote. A row whose
    similarity is not above 0 is a neighbour in name only: it has no weight.

    Args:
        similarities_QG: of the queries and the distinct rows.
        votes_GL: labels of the distinct rows.
        counts_G: training rows that each of them stands for, at least 1.
        neighbours: training rows that vote.
        temperature: t.

    Returns:
        float32 (Q, L).
    """
    queries, rows, taken = nearest(similarities_QG, counts_G, neighbours)
    similarities = similarities_QG[queries, rows]
    if not temperature:
        weights = np.maximum(similarities, 0) * taken
    else:
        peaks_Q = similarities_QG.max(axis=1)
        weights = np.where(similarities > 0, np.exp((similarities - peaks_Q[queries]) / temperature), 0) * taken
        totals_Q = np.bincount(queries, weights, minlength=len(similarities_QG))
        weights /= np.where(totals_Q > 0, totals_Q, 1)[queries]
    weights_QG = csr_array((weights, (queries, rows)), shape=similarities_QG.shape)
    scores_QL: NDArray[np.float32] = (weights_QG @ votes_GL).toarray().astype(np.float32)
    return scores_QL


def last_similarities(
    similarities_QG: NDArray[np.floating], counts_G: NDArray[np.integer], neighbours: int
) -> NDArray[np.floating]:
    """The similarity of the last row that votes for each query, (Q,)."""
    queries, rows, _ = nearest(similarities_QG, counts_G, neighbours)
    lasts_Q = np.searchsorted(queries, np.arange(len(similarities_QG)), side="right") - 1
    return similarities_QG[queries[lasts_Q], rows[lasts_Q]]


def nearest(
    similarities_QG: NDArray[np.floating], counts_G: NDArray[np.integer], neighbours: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The most similar rows of every query, ties by row, until they stand for as many training rows as may vote.

    Returns:
        Query and distinct row of each pair, and how many of the training rows that it stands for vote: all of them but
        for each query's last row, which may be cut. int64, one entry a pair, ordered by query, then nearest first.
    """
    count = min(neighbours, similarities_QG.shape[1])
    # Sorting all rows of a query would dwarf everything else: only those that reach the count-th value are sorted.
    floor_Q = np.partition(similarities_QG, -count, axis=1)[:, -count]
    queries, rows = np.nonzero(similarities_QG >= floor_Q[:, None])
    order = np.lexsort((rows, -similarities_QG[queries, rows], queries))
    queries, rows = queries[order], rows[order]
    sizes = counts_G[rows].astype(np.int64)
    before = np.cumsum(sizes) - sizes
    starts_Q = np.searchsorted(queries, np.arange(len(similarities_QG)))
    before -= before[starts_Q[queries]]
    taken = np.clip(neighbours - before, 0, sizes)
    kept = taken > 0
    return queries[kept], rows[kept], taken[kept]
