"""Rows of unit length are those of the formula, however many are weighed at once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array

from training.terms import Terms
from training.vocabulary import inverse_document_frequency
from training.weighing import Weighing, first_rows, learn_weighing, unit_rows

V = 4
TERMS = Terms(np.zeros(V + 1, dtype=np.int64), np.empty(0, np.int32), np.empty(0, np.int64))  # tokens alone

cells = st.lists(st.sampled_from([0.0, 0.0, 1.0, 2.0, 16.0]), min_size=V, max_size=V)
rows_of_cells = st.lists(cells, min_size=1, max_size=9).map(lambda rows: csr_array(np.array(rows, dtype=np.float32)))


def reference(words: csr_array, idf: np.ndarray | None, *, texts: bool) -> np.ndarray:
    values = words.toarray().astype(np.float64)
    if texts:
        values = np.where(values > 0, 1 + np.log(np.maximum(values, 1)), 0)
    values = values if idf is None else values * idf
    lengths = np.sqrt(np.square(values).sum(axis=1, keepdims=True))
    return values / np.where(lengths > 0, lengths, 1)


@given(
    words=rows_of_cells,
    idf=st.none() | st.lists(st.floats(0.5, 9), min_size=V, max_size=V).map(lambda idf: np.array(idf, np.float32)),
    texts=st.booleans(),
    rows_at_once=st.integers(1, 4),
)
def test_unit_rows_are_those_of_the_formula(
    words: csr_array, idf: np.ndarray | None, texts: bool, rows_at_once: int
) -> None:
    before = words.data.copy()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.weighing.ROWS_AT_ONCE", rows_at_once)
        found = unit_rows(words, Weighing(TERMS if texts else None, idf))
    np.testing.assert_allclose(found.toarray(), reference(words, idf, texts=texts), rtol=1e-5)
    np.testing.assert_array_equal(words.data, before)


@given(words=rows_of_cells, train_rows=st.integers(0, 9), texts=st.booleans())
def test_idf_is_that_of_the_first_rows(words: csr_array, train_rows: int, texts: bool) -> None:
    """And of features only where all that are there have the value 1."""
    train_rows = min(train_rows, words.shape[0])
    train = csr_array(words[:train_rows])
    weighing, found = learn_weighing(TERMS if texts else None, words, train_rows)
    if texts or (train.data == 1).all():
        np.testing.assert_array_equal(weighing.idf, inverse_document_frequency(train))
    else:
        assert weighing.idf is None
    np.testing.assert_array_equal(found.toarray(), unit_rows(words, weighing).toarray())


@given(words=rows_of_cells, count=st.integers(0, 9))
def test_first_rows(words: csr_array, count: int) -> None:
    count = min(count, words.shape[0])
    np.testing.assert_array_equal(first_rows(words, count).toarray(), words.toarray()[:count])
