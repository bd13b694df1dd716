"""The vote against loops over all training rows, equal ones included, and its rules by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy.sparse import csr_array

from tests.training.synthetic import matrix
from training.voting import last_similarities, merge_duplicates, vote

ONES = np.ones(500, dtype=np.int32)
TEMPERATURES = st.sampled_from([0.0, 0.25, 1.0, 50.0])


def naive_vote(
    similarities_QN: NDArray[Any], votes_NL: NDArray[Any], neighbours: int, temperature: float = 0.0
) -> NDArray[np.float64]:
    """The vote over all rows as they are; ties go to the lower row."""
    scores_QL = np.zeros((len(similarities_QN), votes_NL.shape[1]))
    for query, similarities in enumerate(similarities_QN.tolist()):
        nearest = sorted(range(len(similarities)), key=lambda row: (-similarities[row], row))[:neighbours]
        positive = [row for row in nearest if similarities[row] > 0]
        if not temperature:
            weights = {row: similarities[row] for row in positive}
        else:
            weights = {row: math.exp((similarities[row] - max(similarities)) / temperature) for row in positive}
            weights = {row: weight / sum(weights.values()) for row, weight in weights.items()}
        for row, weight in weights.items():
            scores_QL[query] += weight * votes_NL[row]
    return scores_QL


@given(
    similarities=hnp.arrays(
        np.float64,
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=7),
        elements=st.one_of(st.sampled_from([-1.0, 0.0, 0.5, 0.5, 2.0]), st.floats(-5, 5)),
    ),
    neighbours=st.integers(1, 9),
    temperature=TEMPERATURES,
    data=st.data(),
)
def test_the_vote_equals_loops(
    similarities: NDArray[np.float64], neighbours: int, temperature: float, data: st.DataObject
) -> None:
    """Ties among rows and more neighbours than rows included."""
    shape = (similarities.shape[1], data.draw(st.integers(1, 5)))
    votes_NL = data.draw(hnp.arrays(np.float64, shape, elements=st.sampled_from([0.0, 0.0, 0.5, 1.0])))
    found = vote(similarities, csr_array(votes_NL), ONES[: shape[0]], neighbours, temperature)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, naive_vote(similarities, votes_NL, neighbours, temperature), rtol=1e-6, atol=1e-6)


@st.composite
def rows_with_duplicates(draw: st.DrawFn) -> NDArray[np.float64]:
    """Training rows (N, L), most of which occur more than once."""
    labels = draw(st.integers(1, 4))
    row = st.lists(st.sampled_from([0.0, 0.0, 0.5, 1.0]), min_size=labels, max_size=labels)
    distinct = draw(st.lists(row, min_size=1, max_size=5))
    return np.array([distinct[which] for which in draw(st.lists(st.integers(0, len(distinct) - 1), min_size=1))])


@given(
    targets_NL=rows_with_duplicates(),
    queries=st.integers(1, 4),
    neighbours=st.integers(1, 12),
    temperature=TEMPERATURES,
    seed=st.integers(0, 2**32 - 1),
)
def test_merged_rows_vote_as_all_rows_do(
    targets_NL: NDArray[np.float64], queries: int, neighbours: int, temperature: float, seed: int
) -> None:
    """Equal rows are equally similar, since similarities are a function of the row; other rows may be as similar too.

    The rows as they are vote in the order that the module states: equal rows side by side, at the place of the first.
    """
    votes_GL, groups_N = merge_duplicates(csr_array(targets_NL))
    draws = np.random.default_rng(seed)
    # Few distinct values, so that different rows tie; exact in float32, so that sums are equal to the bit.
    similarities_QG = draws.choice([-0.5, 0.0, 0.25, 0.5, 1.0], (queries, votes_GL.shape[0]))
    order = np.argsort(groups_N, kind="stable")
    expected = naive_vote(similarities_QG[:, groups_N[order]], targets_NL[order], neighbours, temperature)
    found = vote(similarities_QG, votes_GL, np.bincount(groups_N), neighbours, temperature)
    if not temperature:
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)
    distinct = draws.permutation(votes_GL.shape[0]) + 1.0  # no ties but of equal rows: the order of rows is no matter
    found = vote(distinct[None], votes_GL, np.bincount(groups_N), neighbours)
    np.testing.assert_array_equal(found, naive_vote(distinct[None, groups_N], targets_NL, neighbours))


@given(rows_with_duplicates())
def test_merging_keeps_every_row(targets_NL: NDArray[np.float64]) -> None:
    votes_GL, groups_N = merge_duplicates(csr_array(targets_NL))
    np.testing.assert_array_equal(votes_GL.toarray()[groups_N], targets_NL)
    distinct = {tuple(row) for row in targets_NL.tolist()}
    assert votes_GL.shape[0] == len(distinct)
    _, firsts = np.unique(groups_N, return_index=True)
    assert firsts.tolist() == sorted(firsts)
    assert votes_GL.has_sorted_indices
    assert (votes_GL.data != 0).all()


def test_rows_that_differ_in_order_and_zeros_alone_are_equal() -> None:
    """As a file may list them; relevances that differ make other rows."""
    data = np.array([1.0, 2.0, 2.0, 1.0, 0.0, 1.0, 3.0], dtype=np.float32)
    matrix_NL = csr_array((data, [0, 3, 3, 0, 1, 0, 3], [0, 2, 5, 7]), shape=(3, 4))
    votes_GL, groups_N = merge_duplicates(matrix_NL)
    assert groups_N.tolist() == [0, 0, 1]
    assert votes_GL.toarray().tolist() == [[1, 0, 0, 2], [1, 0, 0, 3]]
    assert matrix_NL.nnz == 7  # the caller's matrix is left alone


def test_a_row_that_stands_for_many_may_vote_in_part() -> None:
    # Three neighbours: both rows with label 1, and one of the three with label 0.
    votes_GL = matrix([{0: 1.0}, {1: 1.0}, {2: 1.0}], 3)
    found = vote(np.array([[0.5, 1.0, 0.25]]), votes_GL, np.array([3, 2, 4]), 3)
    assert found.tolist() == [[0.5, 2.0, 0.0]]


def test_the_vote_by_hand() -> None:
    # Two neighbours of three: row 1 (0.8) for labels 0 and 2, row 2 (0.5) for label 2 at half relevance.
    votes_NL = matrix([{1: 1.0}, {0: 1.0, 2: 1.0}, {2: 0.5}], 3)
    similarities = np.array([[0.4, 0.8, 0.5]])
    assert vote(similarities, votes_NL, ONES[:3], 2).tolist() == [pytest.approx([0.8, 0.0, 1.05])]
    # At a temperature of 0.3, row 2 weighs 1 / e of row 1.
    share = 1 / (1 + math.exp(-1))
    expected = [share, 0.0, share + (1 - share) / 2]
    assert vote(similarities, votes_NL, ONES[:3], 2, 0.3).tolist() == [pytest.approx(expected)]


def test_ties_among_many_rows_go_to_the_lower_ones() -> None:
    similarities = np.random.default_rng(0).choice([0.25, 0.5, 1.0], (1, 500))
    nearest = vote(similarities, csr_array(np.eye(500, dtype=np.float32)), ONES, 250)[0].nonzero()[0]
    expected = sorted(range(500), key=lambda row: (-similarities[0, row], row))[:250]
    assert nearest.tolist() == sorted(expected)


@pytest.mark.parametrize("temperature", [0.0, 0.1])
def test_a_similarity_that_is_not_positive_has_no_vote(temperature: float) -> None:
    votes_NL = matrix([{0: 1.0}, {0: 1.0, 1: 1.0}], 2)
    found = vote(np.array([[0.5, -3.0], [0.0, -1.0], [-2.0, -1.0]]), votes_NL, ONES[:2], 2, temperature)
    assert found.tolist() == [[1.0 if temperature else 0.5, 0.0], [0.0, 0.0], [0.0, 0.0]]


def test_similarities_that_are_tiny_or_huge_have_finite_votes() -> None:
    votes_NL = matrix([{0: 1.0}, {1: 1.0}], 2)
    found = vote(np.array([[1e-30, 1e-31], [1e30, 1e29]]), votes_NL, ONES[:2], 2, 1e-3)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found.sum(axis=1), 1)


def test_the_last_voter() -> None:
    similarities = np.array([[0.5, 1.0, 0.25], [3.0, 1.0, 2.0]])
    counts = np.array([3, 2, 4])
    for neighbours, expected in ((1, [1.0, 3.0]), (2, [1.0, 3.0]), (3, [0.5, 3.0]), (4, [0.5, 2.0]), (99, [0.25, 1.0])):
        assert last_similarities(similarities, counts, neighbours).tolist() == expected
