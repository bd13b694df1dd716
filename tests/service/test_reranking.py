"""Served re-ranking is training's, query by query, in any company, and for every type of weights."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

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
from service.search.topk import TopK, select
from service.terms import Terms as ServedTerms
from training.calibration import PlattMap
from training.reranker import Mixture, Reranker
from training.terms import Terms
from training.weighing import Weighing

WORDS, LABELS = 12, 30
HEADING_WEIGHT = 2.5

# What classifiers read: features as they are or times their IDF, tokens alone, or tokens, pieces and pairs.
Kind = Literal["features", "present", "tokens", "terms"]
KINDS: tuple[Kind, ...] = get_args(Kind)


def weighing_of(rng: np.random.Generator, kind: Kind) -> Weighing:
    if kind == "features":
        return Weighing(None, None)
    if kind == "present":
        return Weighing(None, rng.uniform(1, 4, size=WORDS).astype(np.float32))
    lengths = rng.integers(0, 4, WORDS) * (kind == "terms")
    pieces = rng.integers(0, WORDS, lengths.sum()).astype(np.int32)
    pairs = np.flatnonzero(rng.random(WORDS**2) < (0.4 if kind == "terms" else 0))
    terms = Terms(np.append(0, np.cumsum(lengths)), pieces, pairs)
    return Weighing(terms, rng.uniform(1, 4, size=terms.width).astype(np.float32))


def trained(seed: int, candidates: int, kind: Kind, *, nominees: int = 4) -> Reranker:
    rng = np.random.default_rng(seed)
    weighing = weighing_of(rng, kind)
    width = WORDS if weighing.terms is None else weighing.terms.width
    weights = rng.normal(size=(width, LABELS)) * (rng.random((width, LABELS)) < 0.3)
    mixture = Mixture(
        own=PlattMap(slope=1.5, intercept=-0.5),
        words=PlattMap(slope=2, intercept=0.3),
        share=float(rng.uniform(0, 0.9)),
        candidates=candidates,
        nominees=nominees,
    )
    return Reranker(csr_array(weights, dtype=np.float32), weighing, mixture)


def served_terms(folder: Path) -> ServedTerms:
    names = (layout.RERANK_PIECE_OFFSETS, layout.RERANK_PIECES, layout.RERANK_PAIRS)
    return ServedTerms(*(np.load(folder / name) for name in names))


def served(reranker: Reranker, folder: Path, precision: Precision = "fp32", label_count: int = LABELS) -> Served:
    section = write_reranker(reranker, folder, precision, label_count)
    names = (layout.RERANK_OFFSETS, layout.RERANK_LABELS, layout.RERANK_VALUES, layout.RERANK_SCALES)
    idf = np.load(folder / layout.RERANK_IDF) if section.terms or section.present else None
    terms = served_terms(folder) if section.terms else None
    return Served(section, label_count, LABELS, *(np.load(folder / name) for name in names), idf, terms)


def queries(seed: int, count: int, kind: Kind) -> tuple[csr_array, list[Bag], TopK]:
    """What training and service read of the same queries, some of them empty, and a decoder's answers with ties."""
    rng = np.random.default_rng(seed)
    found = select(rng.integers(-2, 3, size=(count, LABELS)).astype(np.float32), LABELS)
    if kind in ("tokens", "terms"):
        return *texts(rng, count), found
    values = rng.integers(1, 4, size=(count, WORDS)) * (rng.random((count, WORDS)) < 0.3)
    bags = [Bag(row.nonzero()[0].astype(np.int64), row[row > 0].astype(np.float32)) for row in values]
    return csr_array(values, dtype=np.float32), bags, found


def texts(rng: np.random.Generator, count: int) -> tuple[csr_array, list[Bag]]:
    """Tokens in reading order, those of headings, if there are any, counting more."""
    bags = []
    for length, heading in rng.integers(0, 9, size=(count, 2)):
        ids = rng.integers(0, WORDS, length)
        counts = np.where(np.arange(length) < heading, 1 + HEADING_WEIGHT, 1).astype(np.float32)
        distinct, places = np.unique(ids, return_inverse=True)
        summed = np.bincount(places, counts, len(distinct)).astype(np.float32)
        bags.append(Bag(distinct, summed, words=(ids, counts)))
    ids, counts = (np.concatenate(part) for part in zip(*(bag.reading for bag in bags), strict=True))
    indptr = np.cumsum([0, *(bag.reading[0].size for bag in bags)])
    return csr_array((counts, ids, indptr), shape=(count, WORDS)), bags


@settings(max_examples=60)
@given(seed=st.integers(0, 2**31), count=st.integers(1, 5))
def test_terms_are_training_s(tmp_path_factory: pytest.TempPathFactory, seed: int, count: int) -> None:
    reranker = trained(seed, 10, "terms")
    words, bags, _ = queries(seed + 1, count, "terms")
    folder = tmp_path_factory.mktemp("arrays")
    write_reranker(reranker, folder, "fp32", LABELS)
    assert reranker.weighing.terms is not None
    expected, found = reranker.weighing.terms.count(words), served_terms(folder).count(bags)
    np.testing.assert_array_equal(found.starts, expected.indptr)
    np.testing.assert_array_equal(found.ids, expected.indices)
    np.testing.assert_array_equal(found.values, expected.data)
    assert (found.starts.dtype, found.ids.dtype, found.values.dtype) == (np.int64, np.int64, np.float32)


@settings(max_examples=100)
@given(
    seed=st.integers(0, 2**31),
    count=st.integers(1, 5),
    candidates=st.integers(1, 40),
    nominees=st.integers(0, 40),
    k=st.integers(1, LABELS),
    kind=st.sampled_from(KINDS),
)
def test_answers_are_training_s(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    count: int,
    candidates: int,
    nominees: int,
    k: int,
    kind: Kind,
) -> None:
    reranker = trained(seed, min(candidates, LABELS), kind, nominees=min(nominees, LABELS))
    inputs, bags, whole = queries(seed + 1, count, kind)
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


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**31),
    candidates=st.integers(1, 40),
    nominees=st.integers(0, 10),
    added=st.integers(1, 12),
    kind=st.sampled_from(KINDS),
)
def test_labels_without_classifier_are_ordered_as_in_the_reference(
    tmp_path_factory: pytest.TempPathFactory, seed: int, candidates: int, nominees: int, added: int, kind: Kind
) -> None:
    reranker = trained(seed, candidates, kind, nominees=nominees)
    inputs, bags, _ = queries(seed + 1, 3, kind)
    scores_QL = np.random.default_rng(seed + 2).integers(-2, 3, size=(3, LABELS + added)).astype(np.float32)
    fast = served(reranker, tmp_path_factory.mktemp("arrays"), label_count=LABELS + added)
    top = fast.rerank(bags, select(scores_QL, LABELS + added))
    own_QL = reranked(reranker, inputs, scores_QL)
    np.testing.assert_allclose(top.scores_QK, np.take_along_axis(own_QL, top.ids_QK, axis=1), atol=1e-6)
    assert all(len(set(row)) == len(row) for row in top.ids_QK.tolist())


@pytest.mark.parametrize(("label_count", "dtype"), [(1 << 16, np.uint16), ((1 << 16) + 1, np.uint32)])
def test_rows_are_as_wide_as_all_labels_of_a_bundle_need(tmp_path: Path, label_count: int, dtype: type) -> None:
    """Those without classifier count: it is what the format says."""
    write_reranker(trained(0, 10, "tokens"), tmp_path, "fp32", label_count)
    assert np.load(tmp_path / layout.RERANK_LABELS).dtype == dtype


@pytest.mark.parametrize("kind", KINDS)
def test_company_changes_nothing(tmp_path: Path, kind: Kind) -> None:
    reranker = served(trained(0, 10, kind), tmp_path)
    _, bags, found = queries(1, 6, kind)
    together = reranker.rerank(bags, found)
    for query, bag in enumerate(bags):
        alone = reranker.rerank([bag], TopK(found.ids_QK[[query]], found.scores_QK[[query]]))
        np.testing.assert_array_equal(alone.ids_QK[0], together.ids_QK[query])
        np.testing.assert_array_equal(alone.scores_QK[0], together.scores_QK[query])


@pytest.mark.parametrize(("precision", "tolerance"), [("fp16", 1e-3), ("int8", 2e-2)])
def test_lower_precision_is_near(tmp_path: Path, precision: Precision, tolerance: float) -> None:
    reranker = trained(3, 10, "terms")
    inputs, bags, found = queries(4, 20, "terms")
    top = served(reranker, tmp_path, precision).rerank(bags, found)
    _, scores = reranker.rerank(inputs, found.ids_QK, found.scores_QK)
    # Further down, rounding decides which label is the last nominee.
    np.testing.assert_allclose(top.scores_QK[:, :8], scores[:, :8], atol=tolerance)
    sizes = {"fp16": 2, "int8": 1}
    assert np.load(tmp_path / layout.RERANK_VALUES).itemsize == sizes[precision]


def test_tokens_alone_are_read_without_terms(tmp_path: Path) -> None:
    """Bundles from before there were any."""
    reranker = trained(5, 10, "tokens")
    words, bags, found = queries(6, 8, "tokens")
    section = write_reranker(reranker, tmp_path, "fp32", LABELS).model_copy(update={"terms": False})
    names = (layout.RERANK_OFFSETS, layout.RERANK_LABELS, layout.RERANK_VALUES, layout.RERANK_SCALES)
    arrays = [np.load(tmp_path / name) for name in names]
    old = Served(section, LABELS, LABELS, *arrays, np.load(tmp_path / layout.RERANK_IDF), ServedTerms.of_tokens(WORDS))
    _, scores = reranker.rerank(words, found.ids_QK, found.scores_QK)
    np.testing.assert_allclose(old.rerank(bags, found).scores_QK, scores, atol=1e-6)


def test_a_sequence_is_read_as_the_bag_of_its_tokens(tmp_path: Path) -> None:
    reranker = served(trained(5, 10, "tokens"), tmp_path)
    _, _, found = queries(6, 1, "tokens")
    sequence = Bag(np.array([4, 1, 4], dtype=np.int64), np.ones(3, dtype=np.float32))
    bag = Bag(np.array([1, 4], dtype=np.int64), np.array([1, 2], dtype=np.float32))
    np.testing.assert_array_equal(reranker.rerank([sequence], found).scores_QK, reranker.rerank([bag], found).scores_QK)


def test_the_decoder_is_asked_for_all_candidates_whatever_is_wanted(tmp_path: Path) -> None:
    reranker = served(trained(0, 10, "terms"), tmp_path)
    assert [reranker.wanted(k) for k in (1, 10, 25)] == [10, 10, 25]


@pytest.mark.parametrize("kind", ["tokens", "terms"])
def test_a_token_that_no_classifier_knows_is_an_error(tmp_path: Path, kind: Kind) -> None:
    reranker = served(trained(0, 10, kind), tmp_path)
    _, _, found = queries(1, 1, kind)
    stranger = Bag(np.array([WORDS], dtype=np.int64), np.ones(1, dtype=np.float32))
    with pytest.raises(EngineFailed, match=f"expected token ids below {WORDS}"):
        reranker.rerank([stranger], found)
