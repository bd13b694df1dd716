"""Search along lists gives what scoring all labels gives, to the bit, or says that it is not worth it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from service.bundle import layout
from service.decoders import mach, pruned
from service.decoders.buckets import fold
from service.decoders.mach import MachDecoder
from tests.bundles import inverted_lists
from tests.reference import assert_exact
from tests.service.decoders.test_mach import decoder

LABELS, REPETITIONS, BUCKETS = 20_000, 12, 1_000


def scores(
    rng: np.random.Generator, buckets_LR: NDArray[np.unsignedinteger], buckets: int, relevant: int
) -> NDArray[np.float32]:
    """Of the buckets of a query with some relevant labels, as a trained model gives them: (R, B)."""
    scores_RB = rng.normal(-9, 1, (buckets_LR.shape[1], buckets)).astype(np.float32)
    for rank, label in enumerate(rng.integers(0, len(buckets_LR), relevant)):
        places = np.arange(len(scores_RB)), buckets_LR[label]
        scores_RB[places] = np.maximum(scores_RB[places], rng.normal(-rank / 8, 1, len(scores_RB)))
    return scores_RB


def tables(rng: np.random.Generator, labels: int, repetitions: int, buckets: int) -> NDArray[np.unsignedinteger]:
    return rng.integers(0, buckets, (labels, repetitions)).astype(layout.bucket_dtype(buckets))


def searched(
    scores_RB: NDArray[np.float32], buckets_LR: NDArray[np.unsignedinteger], k: int, *, least: bool
) -> mach.TopK | None:
    """The answer of one search, if it was worth it."""
    ids_QK, best_QK = np.empty((1, k), dtype=np.int64), np.empty((1, k), dtype=np.float32)
    lists = inverted_lists(buckets_LR, scores_RB.shape[1])
    kept_RB = np.empty(scores_RB.shape, dtype=np.int32)
    tops_R, far = scores_RB.max(axis=1), np.iinfo(buckets_LR.dtype).max
    found = pruned.search(scores_RB, tops_R, buckets_LR, *lists, far, least, kept_RB, ids_QK[0], best_QK[0])
    return mach.TopK(ids_QK, best_QK) if found else None


@pytest.mark.parametrize("least", [False, True])
@pytest.mark.parametrize("k", [1, 5, 20])
def test_relevant_labels_are_found_without_scoring_all(k: int, least: bool) -> None:
    rng = np.random.default_rng(k)
    buckets_LR = tables(rng, LABELS, REPETITIONS, BUCKETS)
    scores_RB = scores(rng, buckets_LR, BUCKETS, relevant=30)
    top = searched(scores_RB, buckets_LR, k, least=least)
    assert top is not None
    assert_exact(top, fold(scores_RB[None], buckets_LR, 0, LABELS, least=least), k)


@pytest.mark.parametrize("least", [False, True])
def test_flat_scores_are_not_worth_a_search(least: bool) -> None:
    rng = np.random.default_rng(0)
    buckets_LR = tables(rng, LABELS, REPETITIONS, BUCKETS)
    scores_RB = rng.normal(-9, 1, (REPETITIONS, BUCKETS)).astype(np.float32)
    assert searched(scores_RB, buckets_LR, 100, least=least) is None


@settings(max_examples=300)
@given(
    seed=st.integers(0, 2**32 - 1),
    labels=st.sampled_from([1, 60, 3000, 8000]),
    repetitions=st.integers(1, 12),
    buckets=st.sampled_from([2, 200, 1000]),
    relevant=st.integers(0, 20),
    k=st.integers(1, 12),
    levels=st.sampled_from([0, 1, 3]),
    least=st.booleans(),
)
def test_a_search_never_errs(
    seed: int, labels: int, repetitions: int, buckets: int, relevant: int, k: int, levels: int, least: bool
) -> None:
    """Few levels of scores make ties; of 200 buckets, a byte each, many steps take several entries. Where labels and
    buckets are many, most of these searches are worth it."""
    rng = np.random.default_rng(seed)
    buckets_LR = tables(rng, labels, repetitions, buckets)
    scores_RB = scores(rng, buckets_LR, buckets, relevant)
    if levels:
        scores_RB = np.round(scores_RB * levels / 4) / np.float32(levels)
    k = min(k, labels)
    top = searched(scores_RB, buckets_LR, k, least=least)
    if top is not None:
        assert_exact(top, fold(scores_RB[None], buckets_LR, 0, labels, least=least), k)


@pytest.mark.parametrize("value", [0.0, -3.5, 1e30])
def test_equal_scores_are_answered_by_row(value: float) -> None:
    rng = np.random.default_rng(0)
    buckets_LR = tables(rng, 50, 3, 7)
    top = searched(np.full((3, 7), value, dtype=np.float32), buckets_LR, 4, least=False)
    assert top is None or top.ids_QK.tolist() == [[0, 1, 2, 3]]


def deciding(monkeypatch: pytest.MonkeyPatch, aggregation: mach.Aggregation) -> tuple[MachDecoder, NDArray[np.float32]]:
    """A decoder that searches, and outputs of which every other one is flat."""
    monkeypatch.setattr(mach, "SEARCHED_ENTRIES", 0)
    rng = np.random.default_rng(1)
    buckets_LR = tables(rng, LABELS, REPETITIONS, BUCKETS)
    relevant = [20 * (query % 2) for query in range(6)]
    outputs = np.stack([scores(rng, buckets_LR, BUCKETS, count) for count in relevant])
    return decoder(buckets_LR.T, BUCKETS, aggregation, "sigmoid"), outputs


@pytest.mark.parametrize("aggregation", ["sum_logits", "mean_prob", "unbiased", "min"])
def test_decoders_answer_alike_with_and_without_a_search(
    aggregation: mach.Aggregation, monkeypatch: pytest.MonkeyPatch
) -> None:
    searching, outputs = deciding(monkeypatch, aggregation)
    top = searching.decode({"bucket_logits": outputs}, 10)
    monkeypatch.setattr(mach, "MOST_SEARCHED", 9)
    whole = searching.decode({"bucket_logits": outputs}, 10)
    np.testing.assert_array_equal(top.ids_QK, whole.ids_QK)
    np.testing.assert_array_equal(top.scores_QK, whole.scores_QK)


def test_searches_for_nothing_are_seldom_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    searching, outputs = deciding(monkeypatch, "sum_logits")
    tried: list[int] = []
    search = pruned.search
    monkeypatch.setattr(pruned, "search", lambda *arguments: tried.append(1) or search(*arguments))
    flat, peaked = ({"bucket_logits": np.repeat(outputs[query : query + 1], 200, axis=0)} for query in (0, 1))
    searching.decode(flat, 5)
    assert len(tried) == mach.PATIENCE + 3  # at 64, 128 and 192 failures again
    searching.decode(flat, 6)
    assert len(tried) == 2 * (mach.PATIENCE + 3)  # of another k nothing is known
    searching.decode(peaked, 5)
    assert len(tried) > 2 * (mach.PATIENCE + 3) + 100
