"""Clusters: a permutation in balanced halves, drawn by a seed alone, and batches that keep neighbours together."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from training.negatives.clusters import cluster_order, cut, split

Vectors = NDArray[np.float32]

vectors = hnp.arrays(np.float32, st.tuples(st.integers(1, 40), st.integers(1, 4)), elements=st.floats(-1, 1, width=32))
seeds = st.integers(0, 1000)


def unit(vectors_ND: Vectors) -> Vectors:
    lengths = np.linalg.norm(vectors_ND, axis=1, keepdims=True)
    return (vectors_ND / np.maximum(lengths, np.finfo(np.float32).tiny)).astype(np.float32)


def halves(rows: int, most: int) -> list[int]:
    """Sizes of the parts, by the definition."""
    sizes = [rows]
    while max(sizes) > most:
        sizes = [half for size in sizes for half in (size - size // 2, size // 2) if half]
    return sizes


def naive_split(vectors_ND: Vectors, rng: np.random.Generator) -> list[int]:
    """Balanced 2-means row by row, in float64."""
    rows = [row.astype(np.float64) for row in vectors_ND]
    centres = [rows[row] for row in rng.choice(len(rows), size=2, replace=False)]
    before = -np.inf
    for _ in range(20):
        nearer = [float(row @ centres[0] - row @ centres[1]) for row in rows]
        order = sorted(range(len(rows)), key=lambda row: (-nearer[row], row))
        parts = [order[: (len(rows) + 1) // 2], order[(len(rows) + 1) // 2 :]]
        sums = [np.sum([rows[row] for row in part], axis=0) for part in parts]
        similarity = sum(float(np.linalg.norm(total)) for total in sums) / len(rows)
        if similarity - before < 1e-4:
            break
        before = similarity
        centres = [total / max(float(np.linalg.norm(total)), 1e-12) for total in sums]
    return order


@given(vectors_ND=vectors, most=st.integers(1, 12), seed=seeds)
def test_an_order_is_a_permutation_in_which_every_part_was_split_as_defined(
    vectors_ND: Vectors, most: int, seed: int
) -> None:
    order_N = cluster_order(vectors_ND, most, np.random.default_rng(seed))
    assert sorted(order_N.tolist()) == list(range(len(vectors_ND)))
    np.testing.assert_array_equal(order_N, cluster_order(vectors_ND, most, np.random.default_rng(seed)))
    # The same splits by hand, level by level.
    rng, parts = np.random.default_rng(seed), [np.arange(len(vectors_ND))]
    while max(map(len, parts)) > most:
        laid = [part[split(unit(vectors_ND)[part], rng)] for part in parts]
        parts = [half for part in laid for half in np.split(part, [(len(part) + 1) // 2]) if len(half)]
    assert [len(part) for part in parts] == halves(len(vectors_ND), most)
    np.testing.assert_array_equal(order_N, np.concatenate(parts))


@given(rows=st.integers(2, 30), dimensions=st.integers(1, 5), seed=seeds)
def test_a_split_is_that_of_the_naive_program(rows: int, dimensions: int, seed: int) -> None:
    """In float64, and without ties, so that rounding decides nothing."""
    vectors_ND = np.random.default_rng(seed).standard_normal((rows, dimensions))
    vectors_ND /= np.linalg.norm(vectors_ND, axis=1, keepdims=True)
    found = split(vectors_ND, np.random.default_rng(seed))
    expected = naive_split(vectors_ND, np.random.default_rng(seed))
    middle = (rows + 1) // 2
    assert set(found[:middle].tolist()) == set(expected[:middle])


@pytest.mark.parametrize("seed", range(5))
def test_alike_rows_come_together(seed: int) -> None:
    """Eight rows of each of two kinds, shuffled and of any length: the halves are the kinds."""
    rng = np.random.default_rng(seed)
    kinds = rng.permutation(np.repeat([0, 1], 8))
    vectors_ND = np.eye(2, 5, dtype=np.float32)[kinds] + 0.1 * rng.standard_normal((16, 5)).astype(np.float32)
    lengths = rng.uniform(0.1, 10, size=(16, 1)).astype(np.float32)
    first, second = kinds[cluster_order(vectors_ND * lengths, 8, rng)].reshape(2, 8)
    assert len({*first}) == len({*second}) == 1


def test_rows_without_a_direction_do_no_harm() -> None:
    order_N = cluster_order(np.zeros((5, 3), dtype=np.float32), 1, np.random.default_rng(0))
    assert sorted(order_N.tolist()) == list(range(5))


@given(rows=st.integers(1, 50), batch_size=st.integers(1, 20), seed=seeds)
def test_batches_hold_neighbours_and_each_row_once(rows: int, batch_size: int, seed: int) -> None:
    order_N = np.random.default_rng(seed).permutation(rows)
    laid_N = cut(order_N, batch_size, np.random.default_rng(seed))
    assert sorted(laid_N.tolist()) == list(range(rows))
    places = np.empty(rows, dtype=np.int64)
    places[order_N] = np.arange(rows)
    for start in range(0, rows, batch_size):
        batch = places[laid_N[start : start + batch_size]]
        assert (np.diff(batch) % rows == 1 % rows).all()  # neighbours on the ring of the order


def test_batches_are_drawn_anew() -> None:
    order_N = np.arange(1000)
    first, again, second = (cut(order_N, 10, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert {tuple(batch) for batch in first.reshape(-1, 10)} != {tuple(batch) for batch in second.reshape(-1, 10)}
    assert (np.diff(first.reshape(-1, 10)[:, 0]) < 0).any()
