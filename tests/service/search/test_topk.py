from __future__ import annotations

import numpy as np
import pytest

from service.search.topk import TopK, merge, select
from tests.reference import assert_exact


def test_a_worked_example() -> None:
    scores_QL = np.array([[0.5, 2.0, -np.inf, 2.0, 1.0], [3.0, 3.0, 3.0, 3.0, 3.0]], dtype=np.float32)
    top = select(scores_QL, 3)
    assert top.ids_QK.tolist() == [[1, 3, 4], [0, 1, 2]]
    assert top.scores_QK.tolist() == [[2.0, 2.0, 1.0], [3.0, 3.0, 3.0]]


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("k", [1, 5, 200, 1024, 20_000])
@pytest.mark.parametrize("labels", [1, 17, 1023, 1024, 1025, 10_007])
def test_every_size_agrees_with_a_full_sort(labels: int, k: int, transposed: bool) -> None:
    rng = np.random.default_rng(labels + k)
    scores_QL = rng.standard_normal((3, labels)).astype(np.float32)
    given = np.ascontiguousarray(scores_QL.T).T if transposed else scores_QL
    assert_exact(select(given, k), scores_QL, k)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("levels", [1, 2, 3])
def test_masses_of_ties_agree_with_a_full_sort(levels: int, transposed: bool) -> None:
    rng = np.random.default_rng(levels)
    scores_QL = rng.integers(0, levels, (4, 5000)).astype(np.float32)
    given = np.ascontiguousarray(scores_QL.T).T if transposed else scores_QL
    assert_exact(select(given, 50), scores_QL, 50)


def test_minus_infinity_is_the_lowest_score_and_still_a_score() -> None:
    scores_QL = np.full((2, 5000), -np.inf, dtype=np.float32)
    scores_QL[1, [7, 4000]] = 1.0, 2.0
    assert_exact(select(scores_QL, 5), scores_QL, 5)


def test_a_part_of_a_larger_array_is_selected_from_as_well() -> None:
    whole = np.random.default_rng(0).standard_normal((4, 48)).astype(np.float32)
    assert_exact(select(whole[::2, 1::2], 5), whole[::2, 1::2], 5)


@pytest.mark.parametrize("rising", [False, True])
def test_sorted_scores_agree_with_a_full_sort(rising: bool) -> None:
    scores_QL = np.arange(3000, dtype=np.float32)[None, :: 1 if rising else -1]
    assert_exact(select(scores_QL, 70), scores_QL, 70)


def test_merge_joins_parts_and_breaks_ties_by_row() -> None:
    left = TopK(np.array([[2, 0]]), np.array([[3.0, 1.0]], dtype=np.float32))
    right = TopK(np.array([[1, 9, 8]]), np.array([[3.0, 1.0, 0.5]], dtype=np.float32))
    assert merge([left, right], 4).ids_QK.tolist() == [[1, 2, 0, 9]]
    assert merge([left, right], 10).ids_QK.tolist() == [[1, 2, 0, 9, 8]]
    assert merge([left], 1).scores_QK.tolist() == [[3.0]]
