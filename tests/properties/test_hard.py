"""Mined lists are the best labels that are not true, and a step draws from them without replacement."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array

from training.negatives import hard
from training.negatives.hard import draw_hard, mine


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vectors of rows and labels, and which labels are true: none of a row, or all of them, too."""
    rows, labels, seed = draw(st.integers(1, 12)), draw(st.integers(1, 20)), draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    shares = rng.choice([0.0, 0.3, 1.0], size=(rows, 1))
    true_NL = rng.random((rows, labels)) < shares
    sizes = ((rows, 3), (labels, 3))
    return *(rng.standard_normal(size).astype(np.float32) for size in sizes), true_NL


@given(case=cases(), count=st.integers(1, 25), at_once=st.sampled_from([1, 5, 8192]))
def test_lists_are_the_best_labels_that_are_not_true(
    case: tuple[np.ndarray, np.ndarray, np.ndarray], count: int, at_once: int
) -> None:
    queries_ND, labels_LD, true_NL = case
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hard, "ROWS_AT_ONCE", at_once)
        mined_NH = mine(queries_ND, labels_LD, csr_array(true_NL.astype(np.float32)), count)
    assert (mined_NH.shape, mined_NH.dtype) == ((len(queries_ND), count), np.int32)
    scores_NL = queries_ND.astype(np.float64) @ labels_LD.T.astype(np.float64)
    for scores_L, true_L, mined_H in zip(scores_NL, true_NL, mined_NH, strict=True):
        others = [label for label in np.argsort(-scores_L) if not true_L[label]][:count]
        assert mined_H[len(others) :].tolist() == [-1] * (count - len(others))
        mined = mined_H[: len(others)]
        assert len(set(mined.tolist())) == len(others)
        np.testing.assert_allclose(scores_L[mined], scores_L[others], rtol=0, atol=1e-5)
        assert not true_L[mined].any()


@given(
    lists=st.lists(st.sets(st.integers(0, 50), max_size=6), min_size=1, max_size=5),
    per_query=st.integers(1, 8),
    seed=st.integers(0, 1000),
)
def test_a_query_draws_different_labels_of_its_own_list(lists: list[set[int]], per_query: int, seed: int) -> None:
    # Labels of a row are told from those of other rows by the hundreds.
    rows = [[100 * row + label for label in labels] for row, labels in enumerate(lists)]
    mined_QH = torch.tensor([row + [-1] * (6 - len(row)) for row in rows], dtype=torch.int32)
    torch.manual_seed(seed)
    drawn = draw_hard(mined_QH, per_query)
    assert drawn.dtype == torch.int64
    assert len(set(drawn.tolist())) == len(drawn)
    assert set(drawn.tolist()) <= {label for row in rows for label in row}
    assert all((drawn // 100 == row).sum() <= per_query for row in range(len(rows)))
    if per_query >= 6:
        assert sorted(drawn.tolist()) == sorted(label for row in rows for label in row)
    torch.manual_seed(seed)
    assert torch.equal(draw_hard(mined_QH, per_query), drawn)


def test_every_label_of_a_list_is_drawn_in_its_turn() -> None:
    counts = torch.zeros(6)
    for seed in range(300):
        torch.manual_seed(seed)
        counts[draw_hard(torch.arange(6, dtype=torch.int32)[None], 2)] += 1
    assert counts.sum() == 600
    np.testing.assert_allclose(counts.numpy(), 100, atol=30)
