"""Integer codes of vectors: the kind that errs less, and errors no larger than a step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from model_export.axes import main_axes
from model_export.codes import decoded, encode, write_codes
from service.bundle import layout
from service.search.codes import Codes
from service.search.topk import TopK
from tests.model_export.vectors import unit_vectors
from tests.reference import assert_best

Vectors = NDArray[np.float32]


def in_few_directions(count: int, directions: int, dimension: int = 64) -> Vectors:
    """Near a subspace that no coordinate belongs to."""
    turned = np.linalg.qr(np.random.default_rng(5).standard_normal((dimension, dimension)))[0]
    wide = unit_vectors(count, dimension=dimension) * np.where(np.arange(dimension) < directions, 1.0, 1e-3)
    return np.ascontiguousarray(wide @ turned, dtype=np.float32)


def test_vectors_in_few_directions_have_16_bits_in_these() -> None:
    vectors = in_few_directions(500, 20)
    codes = encode(vectors, vectors[:50])
    assert (codes.codes_LW.dtype, codes.codes_LW.shape, codes.directions_WD.shape) == (np.int16, (500, 32), (33, 64))
    directions_WD = codes.directions_WD[:-1]
    np.testing.assert_allclose(directions_WD @ directions_WD.T, np.eye(32), atol=1e-5)
    np.testing.assert_allclose(codes.directions_WD[-1], vectors.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(decoded(codes), vectors, atol=5e-4)


def test_vectors_in_all_directions_have_8_bits_of_each_coordinate() -> None:
    vectors = unit_vectors(500, dimension=64)
    codes = encode(vectors, vectors[:50])
    assert (codes.codes_LW.dtype, codes.codes_LW.shape) == (np.int8, (500, 64))
    units_D = vectors.std(axis=0)
    steps_L = np.abs((vectors - vectors.mean(axis=0)) / units_D).max(axis=1, keepdims=True) / 127
    assert (np.abs(decoded(codes) - vectors) <= 0.5001 * steps_L * units_D + 1e-6).all()


def test_a_coordinate_that_is_large_takes_no_bits_from_the_others() -> None:
    """As the biases of one-vs-all are, whether they are much the same or not."""
    rng = np.random.default_rng(0)
    for biases in (rng.normal(-30, 0.1, (500, 1)), rng.normal(0, 30, (500, 1)), np.full((500, 1), 0.1)):
        vectors = np.concatenate([unit_vectors(500, dimension=12), biases], axis=1).astype(np.float32)
        off = decoded(encode(vectors, np.ones((9, 13), dtype=np.float32))) - vectors
        assert np.abs(off[:, :12]).max() < 0.01
        assert np.abs(off[:, 12]).max() < 0.02 * biases.std() + 1e-6


def test_codes_take_at_most_three_eighths_of_the_bytes() -> None:
    for vectors in (in_few_directions(500, 20), in_few_directions(500, 47), unit_vectors(500, dimension=64)):
        codes = encode(vectors, vectors[:50])
        assert codes.codes_LW.nbytes <= vectors.nbytes * 3 / 8


def test_directions_hold_most_of_the_squares_first() -> None:
    vectors = in_few_directions(300, 7)
    directions_DD, shares_D = main_axes(vectors)
    assert shares_D.sum() == pytest.approx(1)
    assert (np.diff(shares_D) <= 1e-7).all()
    assert shares_D[:7].sum() > 0.999
    held = np.square(vectors @ directions_DD.T).sum(axis=0) / np.square(vectors).sum()
    np.testing.assert_allclose(shares_D, held, atol=1e-5)


@settings(max_examples=50, deadline=None)
@given(
    count=st.integers(1, 40),
    dimension=st.integers(1, 20),
    queries=st.integers(1, 4),
    k=st.integers(1, 50),
    flat=st.booleans(),
    seed=st.integers(0, 99),
)
def test_scores_are_products_with_the_decoded_vectors(
    count: int, dimension: int, queries: int, k: int, flat: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((count, dimension)).astype(np.float32)
    if flat:
        vectors[:, 1:] = 0
    asked = rng.standard_normal((queries, dimension)).astype(np.float32)
    codes = encode(vectors, asked)
    products_QL = asked.astype(np.float64) @ decoded(codes).T.astype(np.float64)
    rows_QC = rng.integers(0, count, (queries, 7))
    expected_QC = np.take_along_axis(products_QL, rows_QC, axis=1)
    np.testing.assert_allclose(codes.score(asked, rows_QC), expected_QC, atol=1e-4)
    top = codes.search(asked, k)
    assert isinstance(top, TopK)
    assert_best(top, products_QL, k, 1e-4)


@pytest.mark.parametrize("vectors", [in_few_directions(300, 10), unit_vectors(300, dimension=64)])
def test_scores_do_not_depend_on_company(vectors: Vectors) -> None:
    codes, rows_QC = encode(vectors, vectors[:50]), np.tile(np.arange(300), (50, 1))
    together = codes.score(vectors[:50], rows_QC)
    alone = np.concatenate([codes.score(vectors[row : row + 1], rows_QC[:1]) for row in range(50)])
    np.testing.assert_array_equal(together, alone)


def test_a_vector_of_zeros_scores_zero() -> None:
    codes = encode(np.zeros((3, 5), dtype=np.float32), unit_vectors(2, dimension=5))
    assert (codes.scales_L > 0).all()
    assert codes.search(unit_vectors(2, dimension=5), 3).scores_QK.tolist() == [[0, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize("vectors", [in_few_directions(300, 10), unit_vectors(300, dimension=64)])
def test_files_hold_what_was_encoded(tmp_path: Path, vectors: Vectors) -> None:
    codes = encode(vectors, vectors[:50])
    write_codes(tmp_path, codes)
    files = {file.name: np.load(file, mmap_mode="r") for file in tmp_path.iterdir()}
    assert set(files) == {layout.LABEL_CODES, layout.LABEL_SCALES, layout.LABEL_DIRECTIONS}
    reread = Codes.from_arrays(files)
    np.testing.assert_array_equal(decoded(reread), decoded(codes))
    assert reread.nbytes == codes.nbytes == sum(array.nbytes for array in files.values())
