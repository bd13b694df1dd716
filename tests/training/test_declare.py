"""DECLARE: recovery by factors or by rows is the same, the vote against loops, and what its options change."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy.sparse import csr_array

from tests.training.synthetic import batch, feature_dataset, matrix, random_dataset
from training.artifact import new_model
from training.data.batches import Bags, Rows
from training.data.dataset import Dataset
from training.encoders import BagConfig
from training.methods.base import Shape
from training.methods.declare import Declare, DeclareConfig, vote
from training.recipes import RunConfig
from training.svd import right_factors


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
    votes_NL, factors_LC = model.votes_NL.astype(np.float64), model.factors_LC.numpy()
    rows_NC = votes_NL @ factors_LC
    predicted_QC = np.random.default_rng(0).standard_normal((6, 4))
    by_factors_QN = (votes_NL @ (factors_LC @ predicted_QC.T)).T
    by_rows_QN = predicted_QC @ rows_NC.T
    np.testing.assert_allclose(by_factors_QN, by_rows_QN, rtol=1e-12, atol=1e-12)
    left, right = (vote(similarities, votes_NL, 5) for similarities in (by_factors_QN, by_rows_QN))
    np.testing.assert_allclose(left, right, rtol=1e-6)


@pytest.mark.parametrize("scaling", ["none", "column"])
def test_scores_are_the_votes_of_the_nearest_rows_of_z(dataset: Dataset, scaling: str) -> None:
    model = build(dataset, scaling=scaling).eval()
    bags = Bags.from_csr(dataset.train.inputs)
    rows_NC = model.votes_NL @ model.factors_LC.numpy()
    predicted_QC = (model(bags) * model.scales_C).detach().numpy()
    expected = naive_vote(predicted_QC @ rows_NC.T, model.votes_NL.toarray(), 5)
    with torch.no_grad():
        np.testing.assert_allclose(model.score(bags).numpy(), expected, rtol=1e-3, atol=1e-5)


def naive_vote(similarities_QN: NDArray[Any], votes_NL: NDArray[Any], neighbours: int) -> NDArray[np.float64]:
    scores_QL = np.zeros((len(similarities_QN), votes_NL.shape[1]))
    for query, similarities in enumerate(similarities_QN.tolist()):
        nearest = sorted(range(len(similarities)), key=lambda row: (-similarities[row], row))[:neighbours]
        for row in nearest:
            scores_QL[query] += max(similarities[row], 0.0) * votes_NL[row]
    return scores_QL


@given(
    similarities=hnp.arrays(
        np.float64,
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=7),
        elements=st.one_of(st.sampled_from([-1.0, 0.0, 0.5, 0.5, 2.0]), st.floats(-5, 5)),
    ),
    neighbours=st.integers(1, 9),
    data=st.data(),
)
def test_the_vote_equals_loops(similarities: NDArray[np.float64], neighbours: int, data: st.DataObject) -> None:
    """Ties among rows and more neighbours than rows included."""
    shape = (similarities.shape[1], data.draw(st.integers(1, 5)))
    votes_NL = data.draw(hnp.arrays(np.float64, shape, elements=st.sampled_from([0.0, 0.0, 0.5, 1.0])))
    found = vote(similarities, csr_array(votes_NL), neighbours)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, naive_vote(similarities, votes_NL, neighbours), rtol=1e-6, atol=1e-6)


def test_the_vote_by_hand() -> None:
    # Two neighbours of three: row 1 (0.8) for labels 0 and 2, row 2 (0.5) for label 2 at half relevance.
    votes_NL = matrix([{1: 1.0}, {0: 1.0, 2: 1.0}, {2: 0.5}], 3)
    found = vote(np.array([[0.4, 0.8, 0.5]]), votes_NL, 2)
    assert found.tolist() == [pytest.approx([0.8, 0.0, 1.05])]


def test_ties_among_many_rows_go_to_the_lower_ones() -> None:
    similarities = np.random.default_rng(0).choice([0.25, 0.5, 1.0], (1, 500))
    nearest = vote(similarities, csr_array(np.eye(500, dtype=np.float32)), 250)[0].nonzero()[0]
    expected = sorted(range(500), key=lambda row: (-similarities[0, row], row))[:250]
    assert nearest.tolist() == sorted(expected)


def test_a_negative_similarity_takes_no_votes_away() -> None:
    votes_NL = matrix([{0: 1.0}, {0: 1.0, 1: 1.0}], 2)
    assert vote(np.array([[0.5, -3.0]]), votes_NL, 2).tolist() == [[0.5, 0.0]]


def test_tables_are_factors_and_labels_of_the_training_rows(dataset: Dataset) -> None:
    model = build(dataset)
    np.testing.assert_allclose(model.factors_LC.T @ model.factors_LC, np.eye(4), atol=1e-5)
    np.testing.assert_array_equal(model.votes_NL.toarray(), dataset.train.targets.toarray())
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
    np.testing.assert_allclose(model.votes_NL.toarray(), unit_NL, rtol=1e-6)
    np.testing.assert_allclose(model.factors_LC.numpy(), right_factors(csr_array(unit_NL), 4, 0), atol=1e-5)
    rows = batch(dataset)
    compressed = model.compress(rows.positives, len(rows)).numpy()
    np.testing.assert_allclose(compressed, unit_NL @ model.factors_LC.numpy(), rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(build(dataset, rows="given").votes_NL.toarray(), targets_NL)


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
