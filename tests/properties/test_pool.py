"""The pool of in-batch negatives: whose labels it holds, how many, and targets rebuilt from the whole of it."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests.training.synthetic import matrix
from training.data.batches import Positives
from training.negatives.in_batch import Fill, Pool, _draw_positives, draw_pool, pool_targets

Labels = list[dict[int, float]]

# So many that a label drawn at random is practically never a true one.
MANY_LABELS = 10**7


@st.composite
def batches(draw: st.DrawFn) -> tuple[Labels, int]:
    """Labels with relevances of each query, none for some, and the number of labels."""
    labels = draw(st.integers(1, 12))
    one = st.dictionaries(st.integers(0, labels - 1), st.floats(0.125, 1, width=32), max_size=5)
    return draw(st.lists(one, min_size=1, max_size=6)), labels


def drawn(
    queries: Labels,
    labels: int,
    *,
    beta: int = 3,
    size: int = 100,
    seed: int = 0,
    counts: Tensor | None = None,
    hard: Tensor | None = None,
    fill: Fill = "uniform",
) -> Pool:
    torch.manual_seed(seed)
    positives = Positives.from_csr(matrix(queries, labels))
    counts_L = torch.zeros(1, dtype=torch.int64).expand(labels) if counts is None else counts
    return draw_pool(positives, len(queries), beta, size, counts_L, hard, fill)


@given(
    batch=batches(),
    beta=st.integers(1, 4),
    size=st.integers(1, 15),
    seed=st.integers(0, 1000),
    fill=st.sampled_from(["uniform", "positives"]),
    data=st.data(),
)
def test_targets_are_rebuilt_from_the_whole_pool(
    batch: tuple[Labels, int], beta: int, size: int, seed: int, fill: Fill, data: st.DataObject
) -> None:
    queries, labels = batch
    # A label that is mined for one query may be true of another.
    hard = torch.tensor(data.draw(st.lists(st.integers(0, labels - 1), max_size=8)), dtype=torch.int64)
    pool = drawn(queries, labels, beta=beta, size=size, seed=seed, hard=hard, fill=fill)
    rows = pool.labels_P.tolist()
    assert 1 <= len(rows) <= size
    assert rows == sorted(set(rows))
    assert set(rows) <= set(range(labels))
    assert pool.targets_QP.dtype == torch.float32
    assert pool.targets_QP.tolist() == [[query.get(label, 0.0) for label in rows] for query in queries]


@given(batch=batches(), data=st.data())
def test_targets_of_any_pool(batch: tuple[Labels, int], data: st.DataObject) -> None:
    queries, labels = batch
    rows = sorted(data.draw(st.sets(st.integers(0, labels - 1), min_size=1)))
    positives = Positives.from_csr(matrix(queries, labels))
    targets_QP = pool_targets(positives, len(queries), torch.tensor(rows))
    assert targets_QP.tolist() == [[query.get(label, 0.0) for label in rows] for query in queries]


@given(batch=batches(), seed=st.integers(0, 1000))
def test_a_full_pool_holds_true_labels_only(batch: tuple[Labels, int], seed: int) -> None:
    queries, _ = batch
    true = set().union(*queries)
    if true:
        # Its size is that of the smallest possible draw, so nothing is left to be filled up.
        pool = drawn(queries, MANY_LABELS, size=1, seed=seed)
        assert set(pool.labels_P.tolist()) <= true


@pytest.mark.parametrize("beta", [1, 2, 5])
def test_a_query_draws_at_most_beta_of_its_labels(beta: int) -> None:
    query = dict.fromkeys(range(50), 1.0)
    sizes = set()
    for seed in range(30):
        pool = drawn([query], MANY_LABELS, beta=beta, seed=seed)
        sizes.add(len(set(pool.labels_P.tolist()) & set(query)))
    assert max(sizes) == beta


def test_every_true_label_is_drawn_in_its_turn() -> None:
    queries: Labels = [{}, {0: 1.0, 1: 1.0, 2: 1.0}, {}, {3: 1.0}, {4: 1.0, 5: 1.0}]
    counts = np.zeros(6)
    for seed in range(300):
        rows = drawn(queries, MANY_LABELS, beta=1, size=3, seed=seed).labels_P.numpy()
        counts[rows[rows < 6]] += 1
    assert counts[3] == 300
    np.testing.assert_allclose(counts[:3], 100, atol=30)
    np.testing.assert_allclose(counts[4:], 150, atol=30)


def test_a_pool_is_filled_up_by_uniform_draws() -> None:
    counts = np.zeros(40)
    for seed in range(400):
        counts[drawn([{0: 1.0}], 40, size=11, seed=seed).labels_P.numpy()] += 1
    assert counts[0] == 400
    others = counts[1:]
    # Ten draws with replacement among 40 labels find each with probability 1 - (39/40)^10.
    np.testing.assert_allclose(others, 400 * (1 - (39 / 40) ** 10), atol=45)


def test_labels_beyond_the_size_give_way_to_more_frequent_ones() -> None:
    queries: Labels = [{label: 1.0} for label in range(6)]
    counts = torch.tensor([5, 9, 1, 9, 7, 0])
    assert drawn(queries, 6, beta=1, size=3, counts=counts).labels_P.tolist() == [1, 3, 4]
    # Equally frequent: the lower row stays.
    assert drawn(queries, 6, beta=1, size=1, counts=counts).labels_P.tolist() == [1]


@given(
    hard=st.lists(st.integers(0, 30), max_size=20), size=st.integers(1, 12), seed=st.integers(0, 100), data=st.data()
)
def test_hard_negatives_come_after_drawn_positives_by_how_often_they_were_drawn(
    hard: list[int], size: int, seed: int, data: st.DataObject
) -> None:
    """All labels of a query are drawn where there is but one each."""
    true = sorted(data.draw(st.sets(st.integers(0, 30), min_size=1, max_size=6)))
    pool = drawn([{label: 1.0} for label in true], MANY_LABELS, size=size, seed=seed, hard=torch.tensor(hard).long())
    kept = true[:size]  # equally frequent: the lower rows stay
    further = [label for label in dict.fromkeys(sorted(hard)) if label not in kept]
    expected = kept + sorted(further, key=lambda label: (-hard.count(label), label))[: size - len(kept)]
    # What is left of the size is filled with labels at random, none of them among the first 31 but by a rare chance.
    assert [label for label in pool.labels_P.tolist() if label <= 30] == sorted(expected)
    assert len(pool.labels_P) == size


@given(batch=batches(), beta=st.integers(1, 2), size=st.integers(1, 12), seed=st.integers(0, 100))
def test_a_pool_is_filled_up_with_true_labels_by_how_many_queries_have_them(
    batch: tuple[Labels, int], beta: int, size: int, seed: int
) -> None:
    queries, labels = batch
    torch.manual_seed(seed)
    sampled = set(_draw_positives(Positives.from_csr(matrix(queries, labels)), len(queries), beta).tolist())
    rows = drawn(queries, labels, beta=beta, size=size, seed=seed, fill="positives").labels_P.tolist()
    often = Counter(label for query in queries for label in query)
    others = sorted(set(often) - sampled, key=lambda label: (-often[label], label))
    if not often:
        assert len(rows) == 1  # a pool is never empty
    elif len(sampled) > size:
        assert set(rows) <= sampled
    else:
        assert rows == sorted(sampled | set(others[: size - len(sampled)]))


def test_no_query_has_a_label() -> None:
    assert drawn([{}, {}], 5, size=4, fill="positives").targets_QP.tolist() == [[0.0], [0.0]]
    pool = drawn([{}, {}], 5, size=4)
    assert 1 <= len(pool.labels_P) <= 4
    assert pool.targets_QP.shape == (2, len(pool.labels_P))
    assert not pool.targets_QP.any()


def test_the_seed_decides_the_draw() -> None:
    queries: Labels = [dict.fromkeys(range(row, row + 30), 1.0) for row in range(5)]
    pools = [drawn(queries, 1000, size=40, seed=seed).labels_P.tolist() for seed in (1, 1, 2)]
    assert pools[0] == pools[1]
    assert pools[0] != pools[2]
