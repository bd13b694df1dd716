from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.sparse import csr_array

from service.search.votes import Votes

DENSE_GL = np.array([[0, 2, 2, 0], [0, 0, 0, 0], [0.5, 0, 0, 0.5]], dtype=np.float32)


def test_votes_that_are_alike_in_each_row_are_kept_once() -> None:
    votes = Votes.from_csr(csr_array(DENSE_GL))
    assert votes.alike
    assert votes.values.tolist() == [2.0, 1.0, 0.5]
    assert votes.labels_P.tolist() == [1, 2, 0, 3]
    assert (votes.row_count, votes.label_count) == (3, 4)


def test_votes_that_differ_in_a_row_are_kept_each() -> None:
    votes = Votes.from_csr(csr_array(np.where(DENSE_GL == 0.5, [[1, 2, 3, 4]], DENSE_GL)))
    assert not votes.alike
    assert votes.values.tolist() == [2.0, 2.0, 1.0, 4.0]


@pytest.mark.parametrize(("labels", "dtype"), [(65_536, np.uint16), (65_537, np.uint32)])
def test_labels_have_the_narrowest_type(labels: int, dtype: type) -> None:
    votes = Votes.from_csr(csr_array(([1.0], ([0], [labels - 1])), shape=(1, labels)))
    assert (votes.labels_P.dtype, votes.labels_P.tolist()) == (dtype, [labels - 1])


@settings(max_examples=100, deadline=None)
@given(
    rows=st.integers(1, 9),
    labels=st.integers(1, 9),
    queries=st.integers(1, 5),
    alike=st.booleans(),
    seed=st.integers(0, 99),
)
def test_votes_are_those_of_the_matrix(rows: int, labels: int, queries: int, alike: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.uniform(0.5, 2, (rows, 1 if alike else labels))
    dense_GL: NDArray[np.float32] = (values * (rng.random((rows, labels)) < 0.5)).astype(np.float32)
    votes = Votes.from_csr(csr_array(dense_GL))
    scores_LQ = rng.standard_normal((labels, queries)).astype(np.float32)
    together_GQ = votes.products(scores_LQ)
    np.testing.assert_allclose(together_GQ, dense_GL @ scores_LQ, rtol=1e-5, atol=1e-5)
    alone_GQ = np.concatenate([votes.products(scores_LQ[:, [query]]) for query in range(queries)], axis=1)
    np.testing.assert_array_equal(alone_GQ, together_GQ)
    voting = dense_GL.any(axis=1)
    np.testing.assert_array_equal(votes.largest_G()[voting], dense_GL.max(axis=1)[voting])
    chosen = rng.integers(0, rows, 4)
    counts, of_labels, of_values = votes.of_rows(chosen)
    spread_RL = np.zeros((4, labels), dtype=np.float32)
    spread_RL[np.repeat(np.arange(4), counts), of_labels] = of_values
    np.testing.assert_array_equal(spread_RL, dense_GL[chosen])
