"""DECLARE: recovery by factors or by rows is the same, and what its options change. The vote: see test_voting."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array

from tests.training.synthetic import batch, feature_dataset, random_dataset
from tests.training.test_voting import naive_vote
from training.artifact import new_model
from training.compression import CAPTURED, unit_rows
from training.data.batches import Bags, Batch, Rows
from training.data.dataset import Dataset
from training.encoders import BagConfig
from training.methods.base import Shape
from training.methods.declare import Declare, DeclareConfig
from training.metrics import inverse_propensities
from training.projection import preserve_neighbours
from training.recipes import RunConfig
from training.svd import right_factors
from training.voting import merge_duplicates, vote


def build(dataset: Dataset, *, seed: int = 0, **options: Any) -> Declare:
    """An untrained DECLARE of a data set, with its tables attached."""
    config = DeclareConfig(**{"rank": 4, "neighbours": 5} | options)
    run = RunConfig(method=config, encoder=BagConfig(widths=(6,))).resolved(Shape.of(dataset))
    torch.manual_seed(seed)
    model = new_model(run, Shape.of(dataset))
    assert isinstance(model, Declare)
    model.attach(Declare.make_tables(run.method, dataset, seed))
    return model


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    """Random rows whose labels are relevant to several degrees."""
    data = random_dataset()
    data.train.targets.data[:] = np.random.default_rng(1).choice([0.25, 0.5, 1.0], data.train.targets.nnz)
    return data


def test_recovery_by_factors_equals_recovery_by_rows(dataset: Dataset) -> None:
    model = build(dataset).double()
    votes_GL, factors_LC, counts_G = model.votes_GL.astype(np.float64), model.factors_LC.numpy(), model.counts_G
    rows_GC = votes_GL @ factors_LC
    predicted_QC = np.random.default_rng(0).standard_normal((6, 4))
    by_factors_QG = (votes_GL @ (factors_LC @ predicted_QC.T)).T
    by_rows_QG = predicted_QC @ rows_GC.T
    np.testing.assert_allclose(by_factors_QG, by_rows_QG, rtol=1e-12, atol=1e-12)
    left, right = (vote(similarities, votes_GL, counts_G, 5) for similarities in (by_factors_QG, by_rows_QG))
    np.testing.assert_allclose(left, right, rtol=1e-6)


@pytest.mark.parametrize("scaling", ["none", "column"])
@pytest.mark.parametrize("similarity", ["inner_product", "cosine"])
@pytest.mark.parametrize("temperature", [0.0, 0.3])
def test_scores_are_the_votes_of_the_nearest_rows_of_z(
    dataset: Dataset, scaling: str, similarity: str, temperature: float
) -> None:
    model = build(dataset, scaling=scaling, similarity=similarity, vote_temperature=temperature).eval()
    bags = Bags.from_csr(dataset.train.inputs)
    targets_NL = dataset.train.targets.toarray().astype(np.float64)
    rows_NC = targets_NL @ model.factors_LC.numpy()
    predicted_QC = (model(bags) * model.scales_C).detach().numpy()
    similarities_QN = predicted_QC @ rows_NC.T
    if similarity == "cosine":
        similarities_QN /= np.linalg.norm(predicted_QC, axis=1, keepdims=True) * np.linalg.norm(rows_NC, axis=1)
    expected = naive_vote(similarities_QN, targets_NL, 5, temperature)
    with torch.no_grad():
        np.testing.assert_allclose(model.score(bags).numpy(), expected, rtol=2e-3, atol=1e-5)


def test_a_row_that_the_compression_drops_is_near_nothing() -> None:
    """Labels 0 and 1 are frequent and fill the two columns; what is left of label 2's row is rounding."""
    inputs = [{column: 1.0} for column in range(9)]
    data = feature_dataset(inputs, [{0: 1.0}] * 5 + [{1: 1.0}] * 3 + [{2: 1.0}], width=9, labels=3)
    model = build(data, rank=2, similarity="cosine")
    np.testing.assert_allclose(model.lengths_G, 1, rtol=1e-5)
    assert np.abs(model.similarities(torch.eye(2))[:, 2]).max() < CAPTURED
    np.testing.assert_allclose(np.abs(model.similarities(torch.eye(2))[:, :2]).max(axis=0), 1, rtol=1e-5)


def test_tables_are_factors_and_labels_of_the_training_rows(dataset: Dataset) -> None:
    model = build(dataset)
    np.testing.assert_allclose(model.factors_LC.T @ model.factors_LC, np.eye(4), atol=1e-5)
    assert (model.weights_L == 1).all()
    _, firsts, counts = np.unique(dataset.train.targets.toarray(), axis=0, return_index=True, return_counts=True)
    order = np.argsort(firsts)
    np.testing.assert_array_equal(model.votes_GL.toarray(), dataset.train.targets.toarray()[firsts[order]])
    np.testing.assert_array_equal(model.counts_G, counts[order])
    rows = batch(dataset)
    expected = dataset.train.targets.toarray() @ model.factors_LC.numpy()
    np.testing.assert_allclose(model.compress(rows.positives, len(rows)).numpy(), expected, rtol=1e-4, atol=1e-6)


def test_a_row_without_labels_is_regressed_to_zero() -> None:
    data = feature_dataset([{0: 1.0}, {1: 1.0}, {2: 1.0}], [{0: 1.0, 1: 1.0}, {}, {1: 1.0}], width=3, labels=2)
    model = build(data, rank=2)
    rows = batch(data)
    assert model.compress(rows.positives, 3)[1].tolist() == [0, 0]
    for loss in ("squared", "cosine"):
        assert torch.isfinite(build(data, rank=2, loss=loss).loss(rows))


def test_option_loss(dataset: Dataset) -> None:
    rows = batch(dataset)
    target_QC = dataset.train.targets.toarray() @ build(dataset).factors_LC.numpy()
    output_QC = build(dataset)(rows.bags).detach().numpy()
    squared = ((output_QC - target_QC) ** 2).sum(axis=1).mean()
    norms = np.linalg.norm(output_QC, axis=1) * np.linalg.norm(target_QC, axis=1)
    cosine = (1 - (output_QC * target_QC).sum(axis=1) / norms).mean()
    assert build(dataset, loss="squared").loss(rows).item() == pytest.approx(squared, rel=1e-4)
    assert build(dataset, loss="cosine").loss(rows).item() == pytest.approx(cosine, rel=1e-4)


def test_option_rows(dataset: Dataset) -> None:
    """Rows of unit length, in the factors, in what is regressed and in the vote alike; empty rows stay empty."""
    targets_NL = dataset.train.targets.toarray()
    targets_NL[3] = 0
    dataset = replace(dataset, train=Rows(dataset.train.inputs, csr_array(targets_NL)))
    lengths_N1 = np.linalg.norm(targets_NL, axis=1, keepdims=True)
    unit_NL = np.divide(targets_NL, lengths_N1, where=lengths_N1 > 0, out=np.zeros_like(targets_NL))
    assert not unit_NL[3].any()
    model = build(dataset, rows="unit")
    np.testing.assert_allclose(np.unique(model.votes_GL.toarray(), axis=0), np.unique(unit_NL, axis=0), rtol=1e-6)
    np.testing.assert_allclose(model.factors_LC.numpy(), right_factors(csr_array(unit_NL), 4, 0), atol=1e-5)
    rows = batch(dataset)
    compressed = model.compress(rows.positives, len(rows)).numpy()
    np.testing.assert_allclose(compressed, unit_NL @ model.factors_LC.numpy(), rtol=1e-4, atol=1e-6)
    given_GL = build(dataset, rows="given").votes_GL.toarray()
    np.testing.assert_array_equal(np.unique(given_GL, axis=0), np.unique(targets_NL, axis=0))


def test_option_scaling(dataset: Dataset) -> None:
    plain, scaled = build(dataset), build(dataset, scaling="column")
    rows = batch(dataset)
    target_QC = plain.compress(rows.positives, len(rows)).numpy()
    assert plain.scales_C.tolist() == [1.0] * 4
    np.testing.assert_allclose(scaled.scales_C.numpy(), target_QC.std(axis=0), rtol=1e-4)
    # Every column is learned at unit deviation, and predictions are scaled back before the search.
    expected = ((scaled(rows.bags).detach().numpy() - target_QC / scaled.scales_C.numpy()) ** 2).sum(axis=1).mean()
    assert scaled.loss(rows).item() == pytest.approx(expected, rel=1e-4)


def test_scaling_survives_a_column_that_never_varies() -> None:
    data = feature_dataset([{0: 1.0}, {1: 1.0}, {2: 1.0}], [{0: 1.0}] * 3, width=3, labels=1)
    loss = build(data, rank=1, scaling="column").loss(batch(data))
    assert torch.isfinite(loss)


def test_option_neighbours(dataset: Dataset) -> None:
    bags = Bags.from_csr(dataset.train.inputs)
    with torch.no_grad():
        voted = [(build(dataset, neighbours=count).eval().score(bags) > 0).sum().item() for count in (1, 5, 40)]
    assert voted[0] < voted[1] < voted[2]


def propensities(dataset: Dataset) -> NDArray[np.float64]:
    card = dataset.card
    return inverse_propensities(dataset.label_counts, dataset.counted_rows, card.propensity_a, card.propensity_b)


@pytest.mark.parametrize("rows", ["given", "unit"])
@pytest.mark.parametrize("similarity", ["inner_product", "cosine"])
def test_option_tail_weighting(dataset: Dataset, rows: str, similarity: str) -> None:
    """Columns are weighted before the compression and nowhere else: votes are as they were."""
    plain = build(dataset, rows=rows)
    model = build(dataset, rows=rows, similarity=similarity, tail_weighting=1.5)
    assert (model.votes_GL != plain.votes_GL).nnz == 0
    weighted_NL = dataset.train.targets.toarray() * propensities(dataset) ** 1.5
    if rows == "unit":
        weighted_NL /= np.linalg.norm(weighted_NL, axis=1, keepdims=True)
    factors_LC = right_factors(csr_array(weighted_NL), 4, 0)
    rows_NC = weighted_NL @ factors_LC
    batch_of_all = batch(dataset)
    np.testing.assert_allclose(model.true_rows(batch_of_all).numpy(), rows_NC, rtol=1e-3, atol=1e-4)
    embedded_QC = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    lengths_N = np.linalg.norm(rows_NC, axis=1) if similarity == "cosine" else np.ones(len(rows_NC))
    _, groups_N = merge_duplicates(unit_rows(dataset.train.targets) if rows == "unit" else dataset.train.targets)
    found = model.similarities(torch.from_numpy(embedded_QC))[:, groups_N]
    np.testing.assert_allclose(found, embedded_QC @ rows_NC.T / lengths_N, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("rows", ["given", "unit"])
@pytest.mark.parametrize("similarity", ["inner_product", "cosine"])
def test_option_compression(dataset: Dataset, rows: str, similarity: str) -> None:
    """Training rows are regressed to their rows of the projection, and found by them."""
    targets_NL = unit_rows(dataset.train.targets) if rows == "unit" else dataset.train.targets
    model = build(dataset, rows=rows, similarity=similarity, compression="neighbours")
    distinct_GL, groups_N = merge_duplicates(targets_NL)
    start_GC = distinct_GL @ right_factors(targets_NL, 4, 0)
    rows_GC = preserve_neighbours(distinct_GL, start_GC, 5, 0)
    np.testing.assert_allclose(model.true_rows(batch(dataset)).numpy(), rows_GC[groups_N], atol=1e-4)
    some = Batch.from_rows(dataset.train, np.array([7, 3]))
    np.testing.assert_allclose(model.true_rows(some).numpy(), rows_GC[groups_N[[7, 3]]], atol=1e-4)
    embedded_QC = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    lengths_G = np.linalg.norm(rows_GC, axis=1) if similarity == "cosine" else 1.0
    found = model.similarities(torch.from_numpy(embedded_QC))
    np.testing.assert_allclose(found, embedded_QC @ rows_GC.T / lengths_G, rtol=1e-3, atol=1e-3)


def test_what_the_loss_alone_reads_is_not_kept(dataset: Dataset) -> None:
    """Scores need neither the labels' weights nor which distinct row a training row is."""
    model = build(dataset, compression="neighbours", tail_weighting=1.0)
    tables = Declare.make_tables(model.config, dataset, 0)
    kept = Declare.kept_tables(tables, {})
    assert set(tables) - set(kept) == {"weights", "groups"}
    bags = Bags.from_csr(dataset.train.inputs)
    with torch.no_grad():
        before = model.eval().score(bags)
        model.attach(kept)
        assert torch.equal(model.score(bags), before)


def test_option_similarity(dataset: Dataset) -> None:
    """Rows and predictions have unit length: the best similarity of a row of Z itself is 1."""
    model = build(dataset, similarity="cosine")
    rows_GC = model.votes_GL @ model.factors_LC.numpy()
    np.testing.assert_allclose(model.lengths_G, np.linalg.norm(rows_GC, axis=1), rtol=1e-5)
    embedded = model.embed(torch.from_numpy(rows_GC))
    np.testing.assert_allclose(np.diag(model.similarities(embedded)), 1, rtol=1e-5)
    assert (build(dataset).lengths_G == 1).all()
    assert not model.embed(torch.zeros(2, 4)).any()


def test_option_vote_temperature(dataset: Dataset) -> None:
    """Scores are shares of the vote: those of all labels sum to a neighbour's labels, at most 3 here."""
    bags = Bags.from_csr(dataset.train.inputs)
    with torch.no_grad():
        cold, warm = (build(dataset, vote_temperature=t).eval().score(bags) for t in (1e-3, 1e3))
    assert cold.max() <= 1.0
    assert warm.max() <= 1.0
    assert (cold > 0).sum() < (warm > 0).sum()  # the nearest row has nearly all of the vote


@pytest.mark.parametrize(
    ("labels", "rows", "given_rank", "expected"),
    [
        (159, 5000, None, 100),
        (1000, 5000, None, 100),
        (1001, 5000, None, 200),
        (50, 5000, None, 50),
        (5000, 30, None, 30),
        (159, 5000, 7, 7),
        (5, 5000, 7, 5),
        (159, 3, 7, 3),
    ],
)
def test_the_rank_is_derived_and_cut_to_the_matrix(
    labels: int, rows: int, given_rank: int | None, expected: int
) -> None:
    shape = Shape(input_width=10, label_count=labels, train_rows=rows, text=True, single_label=False)
    run = RunConfig(method=DeclareConfig(rank=given_rank)).resolved(shape)
    assert isinstance(run.method, DeclareConfig)
    assert run.method.rank == expected
    assert run.encoder.widths == (256,)


def test_given_widths_are_kept() -> None:
    shape = Shape(input_width=10, label_count=5, train_rows=9, text=True, single_label=False)
    assert Declare.encoder_config(DeclareConfig(), BagConfig(widths=(3,)), shape).widths == (3,)
