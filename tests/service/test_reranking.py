"""Served re-ranking is training's, query by query, in any company, and for every type of weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from model_export.reranker import reranked, write_reranker
from service.bags import Bag
from service.bundle import layout
from service.bundle.manifest import Precision
from service.errors import EngineFailed
from service.reranking import Reranker as Served
from service.topk import TopK, select
from training.calibration import PlattMap
from training.reranker import Mixture, Reranker

WORDS, LABELS = 12, 30


def trained(seed: int, candidates: int, *, text: bool, nominees: int = 4) -> Reranker:
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(WORDS, LABELS)) * (rng.random((WORDS, LABELS)) < 0.3)
    mixture = Mixture(
        own=PlattMap(slope=1.5, intercept=-0.5),
        words=PlattMap(slope=2, intercept=0.3),
        share=float(rng.uniform(0, 0.9)),
        candidates=candidates,
        nominees=nominees,
    )
    idf = rng.uniform(1, 4, size=WORDS).astype(np.float32) if text else None
    return Reranker(csr_array(weights, dtype=np.float32), idf, mixture)


def served(reranker: Reranker, folder: Path, precision: Precision = "fp32") -> Served:
    section = write_reranker(reranker, folder, precision)
    arrays = [
        np.load(folder / name)
        for name in (layout.RERANK_OFFSETS, layout.RERANK_LABELS, layout.RERANK_VALUES, layout.RERANK_SCALES)
    ]
    idf = np.load(folder / layout.RERANK_IDF) if reranker.idf is not None else None
    return Served(section, LABELS, *arrays, idf)


def queries(seed: int, count: int) -> tuple[csr_array, list[Bag], TopK]:
    """Bags with counts from 1 to 3, some of them empty, and a decoder's answers with ties."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 4, size=(count, WORDS)) * (rng.random((count, WORDS)) < 0.3)
    inputs = csr_array(counts, dtype=np.float32)
    bags = [Bag(row.nonzero()[0].astype(np.int64), row[row > 0].astype(np.float32)) for row in counts]
    return inputs, bags, select(rng.integers(-2, 3, size=(count, LABELS)).astype(np.float32), LABELS)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    count=st.integers(1, 5),
    candidates=st.integers(1, 40),
    nominees=st.integers(0, 40),
    k=st.integers(1, LABELS),
    text=st.booleans(),
)
def test_answers_are_training_s(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    count: int,
    candidates: int,
    nominees: int,
    k: int,
    text: bool,
) -> None:
    reranker = trained(seed, min(candidates, LABELS), text=text, nominees=min(nominees, LABELS))
    inputs, bags, whole = queries(seed + 1, count)
    fast = served(reranker, tmp_path_factory.mktemp("arrays"))
    found = whole.first(fast.wanted(k))
    top = fast.rerank(bags, found).first(k)
    _, scores = reranker.rerank(inputs, found.ids_QK, found.scores_QK)
    np.testing.assert_allclose(top.scores_QK, scores[:, :k], atol=1e-6)
    # Rounding may swap labels whose scores are that close.
    own = reranked(reranker, inputs, scattered(whole))
    np.testing.assert_allclose(np.take_along_axis(own, top.ids_QK, axis=1), scores[:, :k], atol=1e-6)
    assert all(len(set(row)) == len(row) for row in top.ids_QK.tolist())


def scattered(found: TopK) -> np.ndarray:
    scores_QL = np.empty(found.ids_QK.shape, dtype=np.float32)
    np.put_along_axis(scores_QL, found.ids_QK, found.scores_QK, axis=1)
    return scores_QL


def test_company_changes_nothing(tmp_path: Path) -> None:
    reranker = served(trained(0, 10, text=True), tmp_path)
    _, bags, found = queries(1, 6)
    together = reranker.rerank(bags, found)
    for query, bag in enumerate(bags):
        alone = reranker.rerank([bag], TopK(found.ids_QK[[query]], found.scores_QK[[query]]))
        np.testing.assert_array_equal(alone.ids_QK[0], together.ids_QK[query])
        np.testing.assert_array_equal(alone.scores_QK[0], together.scores_QK[query])


@pytest.mark.parametrize(("precision", "tolerance"), [("fp16", 1e-3), ("int8", 2e-2)])
def test_lower_precision_is_near(tmp_path: Path, precision: Precision, tolerance: float) -> None:
    reranker = trained(3, 10, text=True)
    inputs, bags, found = queries(4, 20)
    top = served(reranker, tmp_path, precision).rerank(bags, found)
    _, scores = reranker.rerank(inputs, found.ids_QK, found.scores_QK)
    # Further down, rounding decides which label is the last nominee.
    np.testing.assert_allclose(top.scores_QK[:, :8], scores[:, :8], atol=tolerance)
    sizes = {"fp16": 2, "int8": 1}
    assert np.load(tmp_path / layout.RERANK_VALUES).itemsize == sizes[precision]


def test_a_sequence_is_read_as_the_bag_of_its_tokens(tmp_path: Path) -> None:
    reranker = served(trained(5, 10, text=True), tmp_path)
    _, _, found = queries(6, 1)
    sequence = Bag(np.array([4, 1, 4], dtype=np.int64), np.ones(3, dtype=np.float32))
    bag = Bag(np.array([1, 4], dtype=np.int64), np.array([1, 2], dtype=np.float32))
    np.testing.assert_array_equal(reranker.rerank([sequence], found).scores_QK, reranker.rerank([bag], found).scores_QK)


def test_the_decoder_is_asked_for_all_candidates_whatever_is_wanted(tmp_path: Path) -> None:
    reranker = served(trained(0, 10, text=True), tmp_path)
    assert [reranker.wanted(k) for k in (1, 10, 25)] == [10, 10, 25]


def test_a_token_that_no_classifier_knows_is_an_error(tmp_path: Path) -> None:
    reranker = served(trained(0, 10, text=True), tmp_path)
    _, _, found = queries(1, 1)
    stranger = Bag(np.array([WORDS], dtype=np.int64), np.ones(1, dtype=np.float32))
    with pytest.raises(EngineFailed, match=f"expected token ids below {WORDS}"):
        reranker.rerank([stranger], found)
