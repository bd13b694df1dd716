"""Sizes of the rows and columns of Z against plain arrays, however they are cut into blocks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.sparse import csr_array

from tests.training.synthetic import matrix, random_dataset
from training import compression
from training.compression import (
    CAPTURED,
    Projected,
    column_deviations,
    kept_lengths,
    row_lengths,
    tail_weights,
    unit_rows,
)
from training.metrics import inverse_propensities


def test_unit_rows() -> None:
    rows = matrix([{0: 3.0, 2: 4.0}, {}, {1: 0.5}], 3)
    assert row_lengths(rows).tolist() == [5, 0, 0.5]
    np.testing.assert_allclose(unit_rows(rows).toarray(), [[0.6, 0, 0.8], [0, 0, 0], [0, 1, 0]], rtol=1e-6)


def test_tail_weights_are_powers_of_inverse_propensities() -> None:
    data = random_dataset()
    data = replace(data, card=replace(data.card, propensity_a=0.6, propensity_b=2.6))
    expected = inverse_propensities(data.label_counts, data.counted_rows, 0.6, 2.6)
    np.testing.assert_allclose(tail_weights(data, 0.5), np.sqrt(expected), rtol=1e-6)
    assert (tail_weights(data, 0.0) == 1).all()


@pytest.mark.parametrize("rows_at_once", [1, 7, 1000])
def test_sizes_of_z(monkeypatch: pytest.MonkeyPatch, rows_at_once: int) -> None:
    monkeypatch.setattr(compression, "ROWS_AT_ONCE", rows_at_once)
    draw = np.random.default_rng(0)
    rows_GL = draw.random((20, 6)) * (draw.random((20, 6)) < 0.5)
    rows_GL[4] = 0
    factors_LC = draw.standard_normal((6, 3)).astype(np.float32)
    factors_LC[5] = CAPTURED / 9
    rows_GL[3], rows_GL[3, 5] = 0, 2.0  # what is left of it is too short to have a direction
    counts_G = draw.integers(1, 4, 20).astype(np.int32)
    z = Projected(csr_array(rows_GL.astype(np.float32)), factors_LC)
    rows_GC = rows_GL @ factors_LC
    expected = np.linalg.norm(rows_GC, axis=1)
    expected[3] = 2
    np.testing.assert_allclose(kept_lengths(z, np.linalg.norm(rows_GL, axis=1)), expected, rtol=1e-5)
    expected = np.repeat(rows_GC, counts_G, axis=0).std(axis=0)
    np.testing.assert_allclose(column_deviations(z, counts_G), expected, rtol=1e-4)


def test_a_column_that_never_varies_keeps_its_size() -> None:
    rows_GC = np.array([[1.0, 3.0, 0.0], [2.0, 3.0, 0.0]], dtype=np.float32)
    found = column_deviations([rows_GC], np.array([1, 1], dtype=np.int32))
    np.testing.assert_allclose(found, [0.5, 3, 1])
