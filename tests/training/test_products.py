"""Products of sparse rows with classifiers are those of dense matrices, whatever is given, tied, padded or empty."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.sparse import csr_array

from training.products import products


def reference(
    products_NL: NDArray[np.float32], given_NK: NDArray[np.int64], nominees: int
) -> tuple[list[list[int]], list[list[float]]]:
    """The definition, dense and row by row."""
    labels_NC, found_NC = [], []
    for products_L, given_K in zip(products_NL, given_NK, strict=True):
        others = [label for label in np.flatnonzero(products_L > 0).tolist() if label not in given_K]
        nominated = sorted(others, key=lambda label: (-products_L[label], label))[:nominees]
        labels_C = [*given_K.tolist(), *nominated, *[-1] * (nominees - len(nominated))]
        labels_NC.append(labels_C)
        found_NC.append([float(products_L[label]) if label >= 0 else 0.0 for label in labels_C])
    return labels_NC, found_NC


@given(st.data())
def test_products_are_those_of_dense_matrices(data: st.DataObject) -> None:
    """Of small whole numbers, whose sums are exact and often equal."""
    N, V, L = (data.draw(st.integers(1, most)) for most in (6, 5, 8))
    K, nominees = data.draw(st.integers(0, L)), data.draw(st.integers(0, L + 2))
    draw = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    rows_NV = draw.integers(-2, 3, size=(N, V)).astype(np.float32)
    weights_VL = draw.integers(-2, 3, size=(V, L)).astype(np.float32)
    given_NK = np.argsort(draw.random((N, L)), axis=1)[:, :K]
    given_NK[draw.random((N, K)) < 0.3] = -1
    before = given_NK.copy()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.products.ROWS_AT_ONCE", data.draw(st.sampled_from([1, 2, 512])))
        labels_NC, products_NC = products(csr_array(rows_NV), csr_array(weights_VL), given_NK, nominees)
    expected = reference(rows_NV @ weights_VL, given_NK, nominees)
    assert (labels_NC.tolist(), products_NC.tolist()) == expected
    assert (labels_NC.dtype, products_NC.dtype) == (np.int64, np.float32)
    np.testing.assert_array_equal(given_NK, before)


def test_by_hand() -> None:
    """Label 1 is given, 0 and 3 tie, 2 has a product below 0; the second row has nothing."""
    rows, weights = (
        csr_array(np.array([[2, 0], [0, 0]], np.float32)),
        csr_array(np.array([[1, 3, -1, 1]] * 2, np.float32)),
    )
    labels, found = products(rows, weights, np.array([[1, -1], [3, 1]]), 3)
    assert labels.tolist() == [[1, -1, 0, 3, -1], [3, 1, -1, -1, -1]]
    assert found.tolist() == [[6, 0, 2, 2, 0], [0, 0, 0, 0, 0]]


def test_no_rows() -> None:
    empty = csr_array((0, 2), dtype=np.float32)
    labels, found = products(empty, csr_array(np.ones((2, 3), np.float32)), np.empty((0, 1), np.int64), 2)
    assert labels.shape == found.shape == (0, 3)
