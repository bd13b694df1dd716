"""Measures of a ranking, by the conventions of the extreme classification repository and pyxclib.

Pure functions of the ranked label rows and the true labels. Letters: N test rows, K ranks, L labels. A row without true
labels stays in every average; its recall counts as 1. Ranks beyond the labels are padded with -1, which counts as a
miss.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

PADDING = -1
CALIBRATION_BINS = 15


def inverse_propensities(label_counts_L: NDArray[np.int64], train_rows: int, a: float, b: float) -> NDArray[np.float64]:
    """1 / p_l = 1 + C (N_l + B)^-A with C = (ln N - 1) (B + 1)^A. Jain, Prabhu and Varma, KDD 2016, section 3.

    Args:
        label_counts_L: training points of each label.
        train_rows: training points N.
        a: propensity constant A.
        b: propensity constant B.
    """
    c = (np.log(train_rows) - 1) * (b + 1) ** a
    result: NDArray[np.float64] = 1 + c * (label_counts_L + b) ** -a
    return result


def report(
    ranked_NK: NDArray[np.int64], targets_NL: csr_array, inverse_propensities_L: NDArray[np.float64], ks: Sequence[int]
) -> dict[str, float]:
    """All measures at the given ranks, in percent.

    Keys: ``P@k`` precision; ``nDCG@k``; ``PSP@k`` propensity-scored precision, normalised by the best possible; ``R@k``
        recall;
    ``RP@k`` hits divided by min(k, true labels), which MACH's authors print as precision; ``coverage@k`` share of the
    labels with a test positive that are hit at least once.

    Raises:
        ValueError: a rank is not between 1 and K.
    """
    if not all(1 <= k <= ranked_NK.shape[1] for k in ks):
        raise ValueError(f"ranks must lie between 1 and {ranked_NK.shape[1]}, found {list(ks)}")
    hits_NK = hits(ranked_NK, targets_NL)
    true_N = np.diff(targets_NL.indptr)
    best_NK = _best_gains(targets_NL, inverse_propensities_L, max(ks))
    gains_NK = hits_NK * inverse_propensities_L[np.maximum(ranked_NK, 0)]
    values = {}
    for k in ks:
        found_N = hits_NK[:, :k].sum(axis=1)
        values[f"P@{k}"] = found_N.mean() / k
        values[f"nDCG@{k}"] = _ndcg(hits_NK[:, :k], true_N)
        values[f"PSP@{k}"] = gains_NK[:, :k].sum() / max(best_NK[:, :k].sum(), np.finfo(float).tiny)
        values[f"R@{k}"] = np.where(true_N > 0, found_N / np.maximum(true_N, 1), 1.0).mean()
        values[f"RP@{k}"] = np.where(true_N > 0, found_N / np.clip(true_N, 1, k), 0.0).mean()
        values[f"coverage@{k}"] = _coverage(ranked_NK[:, :k], hits_NK[:, :k], targets_NL)
    return {name: 100 * float(value) for name, value in values.items()}


def hits(ranked_NK: NDArray[np.int64], targets_NL: csr_array) -> NDArray[np.bool_]:
    """Which ranked labels are true: bool (N, K)."""
    labels = targets_NL.shape[1]
    rows = np.repeat(np.arange(targets_NL.shape[0]), np.diff(targets_NL.indptr))
    true = rows * labels + targets_NL.indices.astype(np.int64)
    cells = np.arange(len(ranked_NK))[:, None] * labels + ranked_NK
    result: NDArray[np.bool_] = np.isin(cells, true) & (ranked_NK != PADDING)
    return result


def calibration_error(probabilities_M: NDArray[np.float64], hits_M: NDArray[np.bool_]) -> float:
    """Expected calibration error of M answers: how far probabilities are from hit rates, from 0 to 1.

    Answers are cut by probability into 15 bins of about equal size, equal probabilities together; the error is the mean
    over bins, weighted by their sizes, of the distance between mean probability and hit rate. Naeini, Cooper and
    Hauskrecht, AAAI 2015, with bins of equal mass: of equal width, most would be empty where probabilities are small.
    It is 0 for no answers.
    """
    if not hits_M.size:
        return 0.0
    edges = np.quantile(probabilities_M, np.arange(1, CALIBRATION_BINS) / CALIBRATION_BINS)
    bins_M = np.searchsorted(edges, probabilities_M, side="right")
    differences = np.bincount(bins_M, probabilities_M) - np.bincount(bins_M, hits_M)
    return float(np.abs(differences).sum() / hits_M.size)


def constant_ranking(label_counts_L: NDArray[np.int64], rows: int, k: int) -> NDArray[np.int64]:
    """The most frequent training labels for every row, ties by label row: int64 (N, K)."""
    return np.tile(np.argsort(-label_counts_L, kind="stable")[:k], (rows, 1))


def _ndcg(hits_NK: NDArray[np.bool_], true_N: NDArray[np.int64]) -> float:
    discounts_K = 1 / np.log2(np.arange(2, hits_NK.shape[1] + 2))
    ideal = np.concatenate([[0.0], np.cumsum(discounts_K)])[np.minimum(true_N, hits_NK.shape[1])]
    return float(np.where(true_N > 0, (hits_NK @ discounts_K) / np.maximum(ideal, discounts_K[-1]), 0.0).mean())


def _best_gains(targets_NL: csr_array, inverse_propensities_L: NDArray[np.float64], k: int) -> NDArray[np.float64]:
    """The k largest inverse propensities among each row's true labels, falling, 0 where there are fewer: (N, K)."""
    rows = np.repeat(np.arange(targets_NL.shape[0]), np.diff(targets_NL.indptr))
    gains = inverse_propensities_L[targets_NL.indices]
    order = np.lexsort((-gains, rows))
    ranks = np.arange(len(rows)) - targets_NL.indptr[rows]
    best_NK = np.zeros((targets_NL.shape[0], k))
    kept = ranks < k
    best_NK[rows[kept], ranks[kept]] = gains[order][kept]
    return best_NK


def _coverage(ranked_NK: NDArray[np.int64], hits_NK: NDArray[np.bool_], targets_NL: csr_array) -> float:
    coverable = len(np.unique(targets_NL.indices))
    return len(np.unique(ranked_NK[hits_NK])) / max(coverable, 1)
