from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray

from service.errors import EngineFailed
from service.resident import best, search
from service.resident.search import ResidentSearch
from service.search.topk import TopK
from tests.reference import assert_best
from tests.service.resident.devices import DEVICES, on, resident_search


def drawn(rows: int, dimension: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((rows, dimension)).astype(np.float32)


def found(decoder: ResidentSearch, queries: NDArray[np.float32], k: int, device: str = "cpu") -> TopK:
    return decoder.decode({"query": on(device, queries)}, k)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e5])
@pytest.mark.parametrize("k", [1, 10, 200, 1000])
@pytest.mark.parametrize(("labels", "dimension"), [(1, 3), (300, 8), (2000, 30)])
def test_search_is_exact(labels: int, dimension: int, k: int, scale: float, device: str) -> None:
    """Also for numbers, or products of numbers, that half floats do not hold."""
    vectors, queries = scale * drawn(labels, dimension), scale * drawn(5, dimension, seed=1)
    top = found(resident_search(vectors, device), queries, k, device)
    scores = queries.astype(np.float64) @ vectors.T.astype(np.float64)
    assert_best(TopK(top.ids_QK, top.scores_QK / np.float32(scale**2)), scores / scale**2, k)


@pytest.mark.parametrize("device", DEVICES)
def test_search_in_groups_is_exact(device: str) -> None:
    vectors, queries = drawn(140_000, 16), drawn(3, 16, seed=1)
    top = found(resident_search(vectors, device), queries, 100, device)
    assert_best(top, queries.astype(np.float64) @ vectors.T.astype(np.float64), 100)


def test_rows_that_fill_up_are_no_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where every label's score is below 0, and all are asked for."""
    monkeypatch.setattr(best, "SORTED", 4)
    vectors = -np.abs(drawn(101, 6))
    top = found(resident_search(vectors, "cpu"), np.abs(drawn(2, 6, seed=1)), 200)
    assert [sorted(row) for row in top.ids_QK.tolist()] == [list(range(101))] * 2


def test_queries_in_turn_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, queries = drawn(300, 8), drawn(7, 8, seed=1)
    at_once = found(resident_search(vectors, "cpu"), queries, 10)
    monkeypatch.setattr(search, "MOST_SCORES", 2 * 300)
    in_turn = found(resident_search(vectors, "cpu"), queries, 10)
    np.testing.assert_array_equal(in_turn.ids_QK, at_once.ids_QK)
    np.testing.assert_allclose(in_turn.scores_QK, at_once.scores_QK, rtol=1e-5)


@pytest.mark.parametrize("device", DEVICES)
def test_equal_labels_come_in_the_order_of_their_rows(device: str) -> None:
    vectors = np.repeat(drawn(40, 8), 5, axis=0)
    top = found(resident_search(vectors, device), drawn(3, 8, seed=1), 12, device)
    for row in top.ids_QK.tolist():
        assert [label % 5 for label in row] == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1]


@pytest.mark.parametrize("device", DEVICES)
def test_an_answer_is_the_beginning_of_every_longer_one(device: str) -> None:
    decoder, queries = resident_search(drawn(2000, 24), device), drawn(9, 24, seed=1)
    longest = found(decoder, queries, 100, device)
    for k in (1, 7, 50):
        np.testing.assert_array_equal(found(decoder, queries, k, device).ids_QK, longest.ids_QK[:, :k])


@pytest.mark.parametrize("device", DEVICES)
def test_searches_of_several_threads_do_not_mix(device: str) -> None:
    decoder, queries = resident_search(drawn(500, 8), device), drawn(16, 8, seed=1)
    expected = found(decoder, queries, 5, device).ids_QK
    with ThreadPoolExecutor(4) as pool:
        tops = list(pool.map(lambda turn: found(decoder, queries[turn : turn + 1], 5, device), list(range(16)) * 4))
    for turn, top in enumerate(tops):
        np.testing.assert_array_equal(top.ids_QK[0], expected[turn % 16])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_query_that_is_not_finite_is_an_error(value: float, device: str) -> None:
    queries = drawn(3, 8)
    queries[1, 2] = value
    with pytest.raises(EngineFailed, match="the encoder's output query is NaN or infinite for one of 3 queries"):
        found(resident_search(drawn(50, 8), device), queries, 5, device)
