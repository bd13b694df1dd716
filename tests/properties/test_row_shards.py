"""Shards of rows: together they are the matrix, and give what it gives, wherever they are cut."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array, vstack

from tests.properties.test_svd import SINGULAR_VALUES, label_matrix, separated
from training import shards
from training.shards import placed_here, row_shards, shard_product, shard_rows
from training.svd import PASSES, right_factors

SEEDS = st.integers(0, 10**6)


@given(rows=st.integers(1, 60), labels=st.integers(1, 12), rows_at_once=st.integers(1, 70), seed=SEEDS)
def test_products_of_shards_add_up_to_that_of_the_matrix(rows: int, labels: int, rows_at_once: int, seed: int) -> None:
    matrix_NL = label_matrix(rows, labels, seed)
    basis_LW = np.random.default_rng(seed).standard_normal((labels, 3))
    dense_NL = matrix_NL.toarray().astype(np.float64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "ROWS_AT_ONCE", rows_at_once)
        cut = list(row_shards(matrix_NL))
        products = list(placed_here(matrix_NL)(basis_LW))
        sizes = {rows_SL.shape[0] for rows_SL in cut[:-1]}
        assert sizes <= {shard_rows(rows, labels)}
    np.testing.assert_array_equal(vstack(cut).toarray(), dense_NL)
    assert [product_LW.dtype for product_LW in products] == [np.float64] * len(cut)
    np.testing.assert_allclose(sum(products), dense_NL.T @ (dense_NL @ basis_LW), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("rows", "labels", "expected"), [(5, 3, 5), (70, 3, 10), (70, 30, 30), (20, 30, 20)])
def test_a_shard_has_as_many_rows_as_labels(
    rows: int, labels: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "ROWS_AT_ONCE", 10)
    assert shard_rows(rows, labels) == expected


@given(rows_at_once=st.integers(1, 25), seed=SEEDS)
def test_factors_do_not_depend_on_the_cut_but_for_rounding(rows_at_once: int, seed: int) -> None:
    matrix_NL = separated(SINGULAR_VALUES)
    whole_LC = right_factors(matrix_NL, 4, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "ROWS_AT_ONCE", rows_at_once)
        np.testing.assert_allclose(right_factors(matrix_NL, 4, seed), whole_LC, atol=1e-6)


def test_the_matrix_is_placed_once_and_passed_over_as_often_as_said() -> None:
    calls: list[str] = []

    def placed(matrix_NL: csr_array) -> shards.Products:
        calls.append("placed")

        def products(basis_LW: shards.Floats) -> list[shards.Floats]:
            calls.append("pass")
            return [shard_product(rows_SL, basis_LW) for rows_SL in row_shards(matrix_NL)]

        return products

    matrix_NL = label_matrix(30, 20, 0)
    assert (right_factors(matrix_NL, 3, 0, placed) == right_factors(matrix_NL, 3, 0)).all()
    assert calls == ["placed", *["pass"] * PASSES]
