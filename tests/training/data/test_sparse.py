"""Sparse matrices have narrow indices, and say the same."""

from __future__ import annotations

import numpy as np
import pytest

from training.data import sparse
from training.data.sparse import narrow_csr

DATA, INDICES, INDPTR = np.array([1.0, 2.0], np.float32), np.array([3, 0]), np.array([0, 1, 1, 2])


@pytest.mark.parametrize(("most", "expected"), [(np.iinfo(np.int32).max, np.int32), (3, np.int64)])
def test_indices_are_narrow_where_that_is_enough(
    most: int, expected: type[np.integer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four columns are more than three."""
    monkeypatch.setattr(sparse, "MOST_NARROW", most)
    made = narrow_csr(DATA, INDICES, INDPTR, (3, 4))
    assert made.indices.dtype == made.indptr.dtype == expected
    assert made.toarray().tolist() == [[0, 0, 0, 1], [0, 0, 0, 0], [2, 0, 0, 0]]


def test_many_entries_need_wide_indices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparse, "MOST_NARROW", 1)
    assert narrow_csr(DATA, np.array([0, 0]), np.array([0, 2]), (1, 1)).indices.dtype == np.int64


def test_what_is_narrow_already_is_not_copied() -> None:
    indices = INDICES.astype(np.int32)
    assert np.shares_memory(narrow_csr(DATA, indices, INDPTR, (3, 4)).indices, indices)
