"""Selection against a full sort, for any scores: ties, infinities, more answers than labels."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from service.search.topk import TopK, merge, select, select_from
from tests.reference import assert_exact

SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=70)
FEW_LEVELS = st.sampled_from([-np.inf, -1.5, 0.0, 1.0, 2.5, np.inf])
ANY_SCORES = st.floats(width=32, allow_nan=False)
SCORES = st.one_of(
    hnp.arrays(np.float32, SHAPES, elements=FEW_LEVELS), hnp.arrays(np.float32, SHAPES, elements=ANY_SCORES)
)


@given(scores_QL=SCORES, k=st.integers(1, 80), transposed=st.booleans())
def test_select(scores_QL: NDArray[np.float32], k: int, transposed: bool) -> None:
    given_QL = np.asfortranarray(scores_QL) if transposed else scores_QL
    assert_exact(select(given_QL, k), scores_QL, k)


@given(scores_QL=SCORES, k=st.integers(1, 20), cut=st.integers(1, 69))
def test_the_best_of_two_halves_merged_are_the_best_of_all(scores_QL: NDArray[np.float32], k: int, cut: int) -> None:
    halves = [(low, half) for low, half in ((0, scores_QL[:, :cut]), (cut, scores_QL[:, cut:])) if half.shape[1]]
    parts = [select(half, k) for _, half in halves]
    moved = [TopK(part.ids_QK + low, part.scores_QK) for part, (low, _) in zip(parts, halves, strict=True)]
    assert_exact(merge(moved, k), scores_QL, k)


@given(scores_QL=SCORES, data=st.data())
def test_listed_candidates(scores_QL: NDArray[np.float32], data: st.DataObject) -> None:
    """Selecting from some candidates is selecting from scores where all others are absent."""
    k = data.draw(st.integers(1, scores_QL.shape[1]))
    listed_QL = data.draw(hnp.arrays(np.bool_, scores_QL.shape))
    listed_QL[:, :k] = True
    queries, ids = np.nonzero(listed_QL)
    top = select_from(queries, ids, scores_QL[queries, ids], len(scores_QL), k)
    for row, listed_L in enumerate(listed_QL):
        only = np.flatnonzero(listed_L)
        expected = only[np.argsort(-scores_QL[row, only], kind="stable")[:k]]
        np.testing.assert_array_equal(top.ids_QK[row], expected)
