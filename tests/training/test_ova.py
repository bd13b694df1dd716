"""One-vs-all: the loss is that of every label, scores are logits, pruning is exact, mined labels reach the pool."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.sparse import check_sparse_tensor_invariants

from tests.training.synthetic import batch, random_dataset
from training.artifact import new_model
from training.data.batches import Bags
from training.data.dataset import Dataset
from training.encoders import BagConfig
from training.methods.base import Shape
from training.methods.declare import DeclareConfig
from training.methods.ova import Ova, OvaConfig
from training.recipes import RunConfig

LABELS = 8


def build(dataset: Dataset, *, seed: int = 0, **options: Any) -> Ova:
    """An untrained model of a data set."""
    run = RunConfig(method=OvaConfig(**options), encoder=BagConfig(widths=(6,))).resolved(Shape.of(dataset))
    torch.manual_seed(seed)
    model = new_model(run, Shape.of(dataset))
    assert isinstance(model, Ova)
    model.attach(Ova.make_tables(run.method, dataset, seed))
    model.initialise(dataset)
    return model


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return random_dataset()


def test_the_loss_is_the_cross_entropy_of_every_label_in_float64(dataset: Dataset) -> None:
    model = build(dataset)
    rows = batch(dataset)
    logits_QL = model.score(rows.bags).detach().double().numpy()
    targets_QL = np.minimum(dataset.train.targets.toarray(), 1).astype(float)
    expected = np.logaddexp(0, logits_QL) - targets_QL * logits_QL
    assert model.loss(rows).item() == pytest.approx(expected.sum() / len(rows), rel=1e-5)


def test_a_sample_of_all_labels_gives_the_same_loss(dataset: Dataset) -> None:
    sampled = build(dataset, negatives="astra", uniform_negatives=LABELS)
    expected = build(dataset, negatives="all").loss(batch(dataset)).item()
    assert sampled.loss(batch(dataset)).item() == pytest.approx(expected, rel=1e-5)


def test_tables_of_another_model_are_refused(dataset: Dataset) -> None:
    with pytest.raises(ValueError, match="expected no tables, found buckets"):
        build(dataset).attach({"buckets": np.zeros((2, LABELS))})


def test_a_score_is_a_logit_of_the_label(dataset: Dataset) -> None:
    model = build(dataset)
    hidden_QD = model.encoder(Bags.from_csr(dataset.train.inputs))
    expected = hidden_QD @ model.classifier.weight.T + model.bias.weight[:, 0]
    torch.testing.assert_close(model.score(Bags.from_csr(dataset.train.inputs)), expected)


def test_biases_start_at_the_log_odds(dataset: Dataset) -> None:
    """A model that has seen nothing predicts the frequent labels."""
    shares = (np.minimum(dataset.train.targets.toarray(), 1).sum(axis=0) + 0.5) / (len(dataset.train) + 1)
    shares = np.minimum(shares, 0.5)
    np.testing.assert_allclose(
        build(dataset).bias.weight[:, 0].detach(), np.log(shares / (1 - shares)), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("kept", [1, 7, 20, 48, 1000])
def test_as_many_weights_are_kept_as_asked_for_and_the_largest(dataset: Dataset, kept: int) -> None:
    model = build(dataset, weights_kept=kept)
    weights = model.classifier.weight.detach().abs().flatten()
    vectors = model.label_vectors().detach()[:, :-1]
    assert (vectors != 0).sum() == min(kept, weights.numel())
    assert vectors.abs().flatten().sort().values[-min(kept, 48) :].equal(weights.sort().values[-min(kept, 48) :])


def test_pruned_weights_count_as_nothing_but_may_grow_back(dataset: Dataset) -> None:
    model = build(dataset, weights_kept=10)
    model.begin_epoch(1, dataset)
    rows = batch(dataset)
    loss = model.loss(rows)
    loss.backward()  # type: ignore[no-untyped-call]
    logits_QL = model.score(rows.bags).detach().double().numpy()
    targets_QL = np.minimum(dataset.train.targets.toarray(), 1)
    expected = (np.logaddexp(0, logits_QL) - targets_QL * logits_QL).sum() / len(rows)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert model.classifier.weight.grad is not None
    assert (model.classifier.weight.grad[model.label_vectors()[:, :-1] == 0] != 0).any()


@pytest.mark.parametrize(("labels", "rows", "weights"), [(500, 900, 100 * 256), (5000, 9000, 200 * 256)])
def test_pruned_to_the_size_of_declares_output_layer(labels: int, rows: int, weights: int) -> None:
    shape = Shape(input_width=10, label_count=labels, train_rows=rows, text=True, single_label=False)
    assert OvaConfig(weights_kept="declare").resolved(shape).weights_kept == weights
    assert weights == 256 * (DeclareConfig().resolved(shape).rank or 0)


@pytest.mark.parametrize(("labels", "negatives"), [(8192, "all"), (8193, "astra")])
def test_few_labels_are_all_seen(labels: int, negatives: str) -> None:
    shape = Shape(input_width=10, label_count=labels, train_rows=9, text=True, single_label=False)
    assert OvaConfig().resolved(shape).negatives == negatives
    for asked in ("all", "astra"):
        assert OvaConfig(negatives=asked).resolved(shape).negatives == asked


def test_mined_labels_are_the_best_wrong_ones_and_are_renewed_when_due(dataset: Dataset) -> None:
    model = build(dataset, negatives="astra", hard_negatives=1, refresh_every=2, hard_from=2)
    model.begin_epoch(1, dataset)
    assert model.renewed() == {}
    model.begin_epoch(2, dataset)
    mined = model.renewed()["mined"]
    with torch.no_grad():
        scores_NL = model.score(Bags.from_csr(dataset.train.inputs)).numpy()
    scores_NL[dataset.train.targets.nonzero()] = -np.inf
    found = np.take_along_axis(scores_NL, mined.numpy().astype(int), axis=1)
    np.testing.assert_allclose(found, -np.sort(-scores_NL, axis=1)[:, :2], rtol=1e-5)
    with torch.no_grad():
        model.classifier.weight.neg_()
    model.begin_epoch(3, dataset)
    assert torch.equal(model.renewed()["mined"], mined)
    model.begin_epoch(4, dataset)
    assert not torch.equal(model.renewed()["mined"], mined)


def test_a_resumed_run_continues_with_what_was_mined(dataset: Dataset) -> None:
    model, other = (build(dataset, negatives="astra", hard_negatives=2) for _ in range(2))
    model.begin_epoch(2, dataset)
    other.take_renewed(model.renewed())
    assert torch.equal(other.renewed()["mined"], model.renewed()["mined"])
    other.take_renewed({})
    assert other.renewed() == {}


def test_only_rows_of_the_pool_get_gradients() -> None:
    data = random_dataset(rows=4, labels=300, per_row=(2,))
    model = build(data, negatives="astra", uniform_negatives=20)
    with check_sparse_tensor_invariants(enable=False):
        model.loss(batch(data)).backward()  # type: ignore[no-untyped-call]
    gradient = model.classifier.weight.grad
    assert gradient is not None
    assert gradient.is_sparse
    assert gradient.coalesce().indices().numel() <= 8 + 20
