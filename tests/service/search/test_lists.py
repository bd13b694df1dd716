"""Which lists of an inverted file a query visits."""

from __future__ import annotations

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_export.faiss_index import build_index
from service.search.lists import FROM, InvertedLists, choose_lists
from tests.model_export.vectors import unit_vectors

STORED, ASKED = unit_vectors(3000), unit_vectors(30, seed=1)
INDEX = build_index(STORED, "ivf")


@settings(max_examples=200, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 5), min_size=1, max_size=40),
    span=st.floats(0, 3, width=32),
    share=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_lists_within_the_span_and_as_many_as_hold_enough(
    sizes: list[int], span: float, share: float, seed: int
) -> None:
    products_N = np.random.default_rng(seed).standard_normal(len(sizes)).astype(np.float32)
    sizes_N, least = np.array(sizes), int(share * sum(sizes))
    chosen = choose_lists(products_N, sizes_N, np.float32(span), least).tolist()
    order = np.argsort(-products_N).tolist()
    assert chosen == order[: len(chosen)]
    floor = products_N[order[min(FROM, len(order)) - 1]] - np.float32(span)
    within = int((products_N >= floor).sum())
    enough = next(count for count in range(len(order) + 1) if sizes_N[order[:count]].sum() >= least)
    assert len(chosen) == max(within, enough)


def test_with_all_lists_the_candidates_are_those_of_the_codes() -> None:
    """FAISS searches all of its lists likewise; scores are sums of small integers, so the last may be equal."""
    lists = faiss.downcast_index(INDEX.index)
    lists.nprobe = lists.nlist
    scores, ids = INDEX.search(ASKED, 300)
    found = InvertedLists(INDEX, 100.0).candidates(ASKED, 300)
    for own, other, scores_K in zip(found, ids, scores, strict=True):
        assert set(other[scores_K > scores_K.min()]) <= set(own)
        assert len(set(own)) == 300


@pytest.mark.parametrize("count", [1, 300, 3000])
def test_candidates_are_as_many_as_asked_for(count: int) -> None:
    rows_QC = InvertedLists(INDEX, 0.0).candidates(ASKED, count)
    assert all(len(set(rows)) == count for rows in rows_QC.tolist())
    assert rows_QC.min() >= 0


def test_gaps_are_measured_from_the_tenth_best_list() -> None:
    gaps_QN = InvertedLists(INDEX, 0.0).gaps(ASKED)
    assert gaps_QN.shape == (30, faiss.downcast_index(INDEX.index).nlist)
    assert (np.sort(gaps_QN, axis=1)[:, FROM - 1] == 0).all()
    assert ((gaps_QN <= 0).sum(axis=1) == FROM).all()
