"""Search along labels' lists of rows gives what the similarities of all rows give, or says that it is not worth it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.sparse import csr_array, random_array

from service.decoders import factors, nearest
from service.decoders.factors import FactorSearch
from service.search.votes import Votes

RANK = 24


@dataclass(frozen=True)
class Rows:
    """Training rows of some topics, each label of one of them.

    Attributes:
        votes_GL: of the rows.
        factors_LC: of the labels.
        lengths_G: of the rows.
        counts_G: neighbours that each row stands for.
    """

    votes_GL: csr_array
    factors_LC: NDArray[np.float32]
    lengths_G: NDArray[np.float32]
    counts_G: NDArray[np.int32]

    def searching(self) -> FactorSearch:
        """The search of these rows."""
        return FactorSearch(self.votes, self.factors_LC, self.lengths_G, self.counts_G)

    @property
    def votes(self) -> Votes:
        """What a search reads."""
        return Votes.from_csr(self.votes_GL)


def drawn(rng: np.random.Generator, rows: int, labels: int, *, votes: float, equal: bool, whole: bool) -> Rows:
    """Rows with so many votes on average; equal votes in a row, or not; in whole numbers that make ties, or not."""
    votes_GL = csr_array(random_array((rows, labels), density=min(1.0, votes / labels), rng=rng, dtype=np.float32))
    size = rows if equal else votes_GL.nnz
    values = rng.integers(1, 4, size) if whole else rng.uniform(0.1, 3, size)
    votes_GL.data[:] = np.repeat(values, np.diff(votes_GL.indptr)) if equal else values
    votes_GL.sort_indices()
    topics_LC = np.eye(RANK)[rng.integers(0, RANK, labels)]
    noise_LC = rng.integers(-1, 2, (labels, RANK)) if whole else 0.5 * rng.standard_normal((labels, RANK))
    factors_LC = (topics_LC + noise_LC) * (1 if whole else rng.uniform(0, 2, (labels, 1)))
    lengths_G = 2.0 ** rng.integers(-1, 2, rows) if whole else rng.uniform(0.2, 3, rows)
    counts_G = rng.integers(1, 4, rows)
    return Rows(votes_GL, factors_LC.astype(np.float32), lengths_G.astype(np.float32), counts_G.astype(np.int32))


def near(rng: np.random.Generator, rows: Rows, queries: int, noise: float) -> NDArray[np.float32]:
    """What a regressor gives: rows of Z and noise."""
    rows_QC = (rows.votes_GL @ rows.factors_LC)[rng.integers(0, len(rows.lengths_G), queries)]
    return (rows_QC + noise * rng.standard_normal(rows_QC.shape)).astype(np.float32)


def searched(
    rows: Rows, scores_L: NDArray[np.float32], neighbours: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]] | None:
    """The answer of one search, if it was worth it."""
    ids_N, best_N = np.empty(neighbours, dtype=np.int64), np.empty(neighbours, dtype=np.float32)
    fixed = nearest.fixed_rows(rows.votes, rows.lengths_G, rows.counts_G)
    lists = nearest.make_lists(rows.votes, rows.factors_LC, rows.lengths_G)
    room = nearest.make_room(len(rows.lengths_G))
    found = nearest.search(scores_L, fixed, lists, room, ids_N, best_N)
    assert not room.sums_G.any()
    return (ids_N, best_N) if found else None


def assert_nearest(
    rows: Rows, scores_L: NDArray[np.float32], ids_N: NDArray[np.int64], best_N: NDArray[np.float32]
) -> None:
    """Hold rows, as many as stand for N neighbours, against the similarities of all rows."""
    similarities_G = rows.votes.products(scores_L[:, None])[:, 0] / rows.lengths_G
    expected_N = np.argsort(-similarities_G, kind="stable")[: len(ids_N)]
    before_N = np.cumsum(rows.counts_G[expected_N]) - rows.counts_G[expected_N]
    voting_N = expected_N[before_N < len(ids_N)]
    np.testing.assert_array_equal(ids_N[: len(voting_N)], voting_N)
    np.testing.assert_array_equal(best_N[: len(voting_N)], similarities_G[voting_N])
    assert (best_N[len(voting_N) :] <= best_N[len(voting_N) - 1]).all()


@pytest.mark.parametrize("equal", [False, True])
@pytest.mark.parametrize("neighbours", [1, 5, 25])
def test_near_rows_are_found_without_a_look_at_all(neighbours: int, equal: bool) -> None:
    rng = np.random.default_rng(neighbours)
    rows = drawn(rng, 20_000, 3_000, votes=4, equal=equal, whole=False)
    scores_L = rows.factors_LC @ near(rng, rows, 1, 0.1)[0]
    answer = searched(rows, scores_L, neighbours)
    assert answer is not None
    assert_nearest(rows, scores_L, *answer)


def test_a_query_that_is_near_to_all_rows_alike_is_not_worth_a_search() -> None:
    """Every label scores the size of its factors, and every row 1."""
    rows = drawn(np.random.default_rng(0), 20_000, 3_000, votes=4, equal=True, whole=False)
    scores_L = np.linalg.norm(rows.factors_LC, axis=1)
    lengths_G = np.maximum(rows.votes_GL @ scores_L, 1e-3)
    assert searched(replace(rows, lengths_G=lengths_G), scores_L, 100) is None


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_a_query_that_is_near_to_no_row_is_not_worth_a_search(value: float) -> None:
    rows = drawn(np.random.default_rng(0), 50, 20, votes=4, equal=True, whole=False)
    assert searched(rows, np.full(20, value, dtype=np.float32), 3) is None


@settings(max_examples=300)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.sampled_from([1, 40, 1000, 4000]),
    labels=st.sampled_from([1, 30, 600]),
    votes=st.sampled_from([0.5, 3.0, 12.0]),
    neighbours=st.integers(1, 40),
    noise=st.sampled_from([0.0, 0.1, 1.0]),
    equal=st.booleans(),
    whole=st.booleans(),
)
def test_a_search_never_errs(
    seed: int, rows: int, labels: int, votes: float, neighbours: int, noise: float, equal: bool, whole: bool
) -> None:
    """Whole numbers make ties. Where rows and labels are many, most of these searches are worth it."""
    rng = np.random.default_rng(seed)
    made = drawn(rng, rows, labels, votes=votes, equal=equal, whole=whole)
    scores_L = made.factors_LC @ near(rng, made, 1, noise)[0]
    answer = searched(made, scores_L, min(neighbours, rows))
    if answer is not None:
        assert_nearest(made, scores_L, *answer)


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e12])
def test_a_search_bears_numbers_of_any_size(scale: float) -> None:
    rng = np.random.default_rng(3)
    rows = drawn(rng, 4_000, 600, votes=3, equal=False, whole=False)
    scores_L = rows.factors_LC @ near(rng, rows, 1, 0.1)[0] * np.float32(scale)
    answer = searched(rows, scores_L, 10)
    assert (answer is None) == (scale < nearest.TINY)
    if answer is not None:
        assert_nearest(rows, scores_L, *answer)


def test_answers_are_alike_with_and_without_a_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """Queries near to some row, to none, and on the far side of all; the second time in a room that was used before."""
    rng = np.random.default_rng(5)
    rows = drawn(rng, 4_000, 600, votes=3, equal=False, whole=False)
    parts = (near(rng, rows, 2, 0.1), np.zeros((1, RANK)), -near(rng, rows, 1, 0.0), near(rng, rows, 4, 1.0))
    embeddings_QC = np.concatenate(parts).astype(np.float32)
    monkeypatch.setattr(factors, "MOST_SEARCHED", len(embeddings_QC))
    whole = rows.searching()(embeddings_QC, 20)
    monkeypatch.setattr(factors, "SEARCHED_VOTES", 0)
    searching = rows.searching()
    for _ in range(2):
        top = searching(embeddings_QC, 20)
        for query in range(len(embeddings_QC)):
            voting = np.searchsorted(np.cumsum(rows.counts_G[whole.ids_QK[query]]), 20) + 1
            np.testing.assert_array_equal(top.ids_QK[query, :voting], whole.ids_QK[query, :voting])
            np.testing.assert_array_equal(top.scores_QK[query, :voting], whole.scores_QK[query, :voting])
    assert len(searching._rooms.free) == 1


def test_many_queries_at_once_are_one_product(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(factors, "SEARCHED_VOTES", 0)
    rng = np.random.default_rng(6)
    rows = drawn(rng, 400, 60, votes=3, equal=True, whole=False)
    searching = rows.searching()
    monkeypatch.setattr(nearest, "search", None)
    assert searching(near(rng, rows, factors.MOST_SEARCHED + 1, 0.1), 10).ids_QK.shape == (
        factors.MOST_SEARCHED + 1,
        10,
    )


def test_rows_that_cannot_be_near_are_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but the search answers a query that is near to a row."""
    monkeypatch.setattr(factors, "SEARCHED_VOTES", 0)
    rng = np.random.default_rng(7)
    rows = drawn(rng, 20_000, 3_000, votes=4, equal=True, whole=False)
    searching = rows.searching()
    monkeypatch.setattr(FactorSearch, "_of_all", None)
    assert searching(near(rng, rows, 1, 0.1), 10).ids_QK.shape == (1, 10)
