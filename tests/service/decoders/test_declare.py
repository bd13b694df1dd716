from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.sparse import csr_array

from service.bundle import layout, open_bundle
from service.bundle.manifest import DeclareSection
from service.decoders.declare import DeclareDecoder
from service.decoders.factors import FactorSearch
from service.decoders.rows import TrainingRows
from service.errors import BundleError
from service.search import topk
from service.search.votes import Votes
from tests.bundles import Spec, TinyModel, resign, write_bundle
from tests.reference import assert_best, best_labels


def decoder(
    votes_GL: NDArray[np.float32],
    factors_LC: NDArray[np.float32],
    neighbours: int,
    *,
    counts_G: NDArray[np.int32] | None = None,
    lengths_G: NDArray[np.float32] | None = None,
    temperature: float | None = None,
) -> DeclareDecoder:
    section = DeclareSection(
        rank=factors_LC.shape[1], neighbours=neighbours, recovery="factors", temperature=temperature
    )
    votes = Votes.from_csr(csr_array(votes_GL))
    return DeclareDecoder(section, TrainingRows(votes, FactorSearch(votes, factors_LC, lengths_G, counts_G), counts_G))


def reference(
    embeddings_QC: NDArray[np.float64],
    votes_NL: NDArray[np.float64],
    factors_LC: NDArray[np.float64],
    neighbours: int,
    *,
    lengths_N: NDArray[np.float64] | float = 1.0,
    temperature: float | None = None,
) -> NDArray[np.float64]:
    """Scores of all labels by the definition, over all rows; similarities that are not positive do not vote."""
    similarities_QN = embeddings_QC @ (votes_NL @ factors_LC).T / lengths_N
    nearest_QN = best_labels(similarities_QN, neighbours)
    near_QN = np.take_along_axis(similarities_QN, nearest_QN, axis=1)
    weights_QN = np.maximum(near_QN, 0)
    if temperature is not None:
        weights_QN = np.where(near_QN > 0, np.exp((near_QN - near_QN[:, :1]) / temperature), 0)
        weights_QN /= np.maximum(weights_QN.sum(axis=1, keepdims=True), 1e-300)
    return np.einsum("qn,qnl->ql", weights_QN, votes_NL[nearest_QN])


def votes_of(model: TinyModel) -> NDArray[np.float64]:
    names = (layout.DECLARE_VOTES_INDPTR, layout.DECLARE_VOTES_INDICES, layout.DECLARE_VOTES_DATA)
    votes = Votes(*(model.tables[name] for name in names), model.spec.label_count, model.spec.alike)
    return votes.products(np.eye(model.spec.label_count, dtype=np.float32)).astype(float)


def test_a_worked_example() -> None:
    """Three rows; the query is nearest to row 2 (similarity 4), then row 0 (1); row 1 is on the far side."""
    votes_NL = np.array([[1, 1, 0, 0, 0], [0, 0, 0, 0, 2], [0, 2, 1, 0, 0]], dtype=np.float32)
    factors_LC = np.array([[1], [0], [4], [0], [-1]], dtype=np.float32)
    embeddings = np.array([[1.0], [-1.0]], dtype=np.float32)
    top = decoder(votes_NL, factors_LC, 3).decode({"embedding": embeddings}, 5)
    assert top.ids_QK.tolist() == [[1, 2, 0, 3, 4], [4, 0, 1, 2, 3]]
    assert top.scores_QK.tolist() == [[9.0, 4.0, 1.0, 0.0, 0.0], [4.0, 0.0, 0.0, 0.0, 0.0]]


@pytest.mark.parametrize("temperature", [None, 0.5])
@pytest.mark.parametrize("neighbours", [1, 7, 50, 1000])
@pytest.mark.parametrize("k", [1, 5, 40, 100])
def test_votes_agree_with_the_definition(k: int, neighbours: int, temperature: float | None) -> None:
    rng = np.random.default_rng(k + neighbours)
    votes_NL = (rng.random((50, 40)) * (rng.random((50, 40)) < 0.1)).astype(np.float32)
    factors_LC = rng.standard_normal((40, 6)).astype(np.float32)
    embeddings_QC = rng.standard_normal((9, 6)).astype(np.float32)
    lengths_N = rng.uniform(0.5, 2, 50).astype(np.float32)
    made = decoder(votes_NL, factors_LC, neighbours, lengths_G=lengths_N, temperature=temperature)
    expected = reference(
        embeddings_QC.astype(float),
        votes_NL.astype(float),
        factors_LC.astype(float),
        neighbours,
        lengths_N=lengths_N.astype(float),
        temperature=temperature,
    )
    assert_best(made.decode({"embedding": embeddings_QC}, k), expected, k)


def test_a_row_that_stands_for_many_may_vote_in_part() -> None:
    """Three neighbours: both rows of the nearest kind, and one of the three of the next."""
    votes_GL = np.eye(3, dtype=np.float32)
    factors_LC = np.array([[0.5], [1.0], [0.25]], dtype=np.float32)
    merged = decoder(votes_GL, factors_LC, 3, counts_G=np.array([3, 2, 4], dtype=np.int32))
    top = merged.decode({"embedding": np.ones((1, 1), np.float32)}, 3)
    assert (top.ids_QK.tolist(), top.scores_QK.tolist()) == ([[1, 0, 2]], [[2.0, 0.5, 0.0]])


def test_lengths_divide_similarities() -> None:
    votes_GL = np.eye(3, dtype=np.float32)
    factors_LC = np.array([[0.5], [1.0], [0.25]], dtype=np.float32)
    divided = decoder(votes_GL, factors_LC, 2, lengths_G=np.array([0.25, 1.0, 0.5], dtype=np.float32))
    top = divided.decode({"embedding": np.ones((1, 1), np.float32)}, 3)
    assert (top.ids_QK.tolist(), top.scores_QK.tolist()) == ([[0, 1, 2]], [[2.0, 1.0, 0.0]])


def test_a_temperature_makes_scores_shares_of_the_vote() -> None:
    votes_GL = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1]], dtype=np.float32)
    factors_LC = np.array([[0.5], [1.0], [-0.5]], dtype=np.float32)
    cooled = decoder(votes_GL, factors_LC, 3, temperature=0.5, counts_G=np.array([1, 2, 1], dtype=np.int32))
    top = cooled.decode({"embedding": np.array([[1.0], [-1.0], [0.0]], np.float32)}, 3)
    share = 2 / (2 + np.exp(-1))  # the nearest row twice, the next with a weight of 1 / e
    np.testing.assert_allclose(top.scores_QK, [[share, 1 - share, 0], [1, 0, 0], [0, 0, 0]], rtol=1e-6)
    assert top.ids_QK.tolist() == [[1, 0, 2], [2, 0, 1], [0, 1, 2]]


def test_a_query_without_neighbours_gets_the_first_labels() -> None:
    votes_NL = np.eye(4, 6, dtype=np.float32)
    top = decoder(votes_NL, np.ones((6, 2), dtype=np.float32), 2).decode({"embedding": np.zeros((1, 2), np.float32)}, 3)
    assert (top.ids_QK.tolist(), top.scores_QK.tolist()) == ([[0, 1, 2]], [[0.0, 0.0, 0.0]])


def test_rows_without_labels_have_no_votes() -> None:
    votes_NL = np.zeros((5, 3), dtype=np.float32)
    top = decoder(votes_NL, np.ones((3, 2), dtype=np.float32), 2).decode({"embedding": np.ones((2, 2), np.float32)}, 2)
    assert top.ids_QK.tolist() == [[0, 1], [0, 1]]


def test_equally_near_rows_vote_by_row() -> None:
    """One neighbour of four equal ones: the first row's label wins."""
    votes_NL = np.eye(4, dtype=np.float32)
    top = decoder(votes_NL, np.ones((4, 1), dtype=np.float32), 1).decode({"embedding": np.ones((1, 1), np.float32)}, 1)
    assert top.ids_QK.tolist() == [[0]]


def test_slices_of_a_batch_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    votes_NL = (rng.random((50, 40)) < 0.1).astype(np.float32)
    factors_LC = rng.standard_normal((40, 6)).astype(np.float32)
    embeddings = {"embedding": rng.standard_normal((9, 6)).astype(np.float32)}
    whole = decoder(votes_NL, factors_LC, 7).decode(embeddings, 5)
    monkeypatch.setattr(topk, "DENSE_SCORES_BY_QUERY", 200)
    slices = decoder(votes_NL, factors_LC, 7).decode(embeddings, 5)
    np.testing.assert_array_equal(slices.ids_QK, whole.ids_QK)
    np.testing.assert_allclose(slices.scores_QK, whole.scores_QK, rtol=1e-5)


@pytest.mark.parametrize("alike", [False, True])
def test_both_recoveries_give_the_same_answers(tmp_path: Path, alike: bool) -> None:
    """Label factors with votes, and an index over Z = Y V_c: the same similarities by two roads."""
    factors = write_bundle(tmp_path / "factors", Spec(method="declare", recovery="factors", alike=alike))
    rows = write_bundle(tmp_path / "rows", Spec(method="declare", recovery="rows", alike=alike))
    embeddings = np.random.default_rng(5).standard_normal((30, factors.spec.rank)).astype(np.float32)
    expected = reference(
        embeddings.astype(float),
        votes_of(factors),
        factors.tables[layout.DECLARE_FACTORS].astype(float),
        factors.spec.neighbours,
    )
    np.testing.assert_array_equal(votes_of(rows), votes_of(factors))
    for name in ("factors", "rows"):
        opened = DeclareDecoder.from_bundle(open_bundle(tmp_path / name), threads=1)
        assert opened.required_outputs == {"embedding": (6,)}
        assert_best(opened.decode({"embedding": embeddings}, 10), expected, 10)


def test_a_search_of_other_rows_than_the_votes_is_refused(tmp_path: Path) -> None:
    write_bundle(tmp_path / "bundle", Spec(method="declare", recovery="rows"))
    write_bundle(tmp_path / "other", Spec(method="declare", recovery="rows", row_count=51))
    for name in (layout.DECLARE_ROWS, layout.DECLARE_ROW_SEARCH):
        (tmp_path / "other" / name).rename(tmp_path / "bundle" / name)
    resign(tmp_path / "bundle")
    with pytest.raises(BundleError, match=r"rows\.vectors\.npy: expected a vector for each of 50 rows, found 51"):
        open_bundle(tmp_path / "bundle")
