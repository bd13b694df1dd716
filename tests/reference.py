"""The slow and obvious way to order scores, which every fast path is held against."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from service.search.topk import TopK


def best_labels(scores_QL: NDArray[np.floating], k: int) -> NDArray[np.int64]:
    """The k best labels of each query by a full stable sort: score descending, ties by row."""
    return np.argsort(-scores_QL, axis=1, kind="stable")[:, :k]


def assert_exact(top: TopK, scores_QL: NDArray[np.floating], k: int) -> None:
    """The answer is exactly that of the full sort, and has the promised types."""
    expected = best_labels(scores_QL, k)
    assert (top.ids_QK.dtype, top.scores_QK.dtype) == (np.int64, np.float32)
    np.testing.assert_array_equal(top.ids_QK, expected)
    np.testing.assert_array_equal(top.scores_QK, np.take_along_axis(scores_QL, expected, axis=1))


def assert_best(top: TopK, scores_QL: NDArray[np.floating], k: int, tolerance: float = 1e-5) -> None:
    """The answer is the reference's but for rounding: labels whose scores are within the tolerance may swap."""
    expected = np.take_along_axis(scores_QL, best_labels(scores_QL, k), axis=1)
    assert top.ids_QK.shape == expected.shape
    np.testing.assert_allclose(top.scores_QK, expected, rtol=tolerance, atol=tolerance)
    own = np.take_along_axis(scores_QL, top.ids_QK, axis=1)
    np.testing.assert_allclose(top.scores_QK, own, rtol=tolerance, atol=tolerance)
    assert all(len(set(row)) == len(row) for row in top.ids_QK.tolist())
    assert (np.diff(top.scores_QK, axis=1) <= 0).all()
