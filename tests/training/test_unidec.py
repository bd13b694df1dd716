"""UniDEC: the concatenated space is the mean of two cosines, the loss is that of its parts, every option acts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tests.training.synthetic import batch, random_dataset, with_label_bags
from training import losses
from training.artifact import new_model
from training.data.batches import Bags
from training.data.dataset import Dataset, UnsuitableData
from training.encoders import BagConfig
from training.methods.base import Shape
from training.methods.unidec import Unidec, UnidecConfig
from training.negatives.in_batch import draw_pool
from training.recipes import RunConfig


def build(dataset: Dataset, *, seed: int = 0, **options: Any) -> Unidec:
    """An untrained UniDEC of a data set, with its label bags attached; dropout is off unless asked for."""
    config = UnidecConfig(**{"dimensions": 5, "dropout": 0.0, "pool_size": 6} | options)
    run = RunConfig(method=config, encoder=BagConfig(widths=(6,))).resolved(Shape.of(dataset))
    torch.manual_seed(seed)
    model = new_model(run, Shape.of(dataset))
    assert isinstance(model, Unidec)
    model.attach(Unidec.make_tables(run.method, dataset, seed))
    return model


def loss(model: Unidec, dataset: Dataset, seed: int = 3) -> torch.Tensor:
    """The loss of the whole training set, over the pool that the seed draws."""
    torch.manual_seed(seed)
    return model.loss(batch(dataset))


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return with_label_bags(random_dataset())


def test_a_score_is_the_mean_of_two_cosines(dataset: Dataset) -> None:
    model = build(dataset).eval()
    with torch.no_grad():
        query_QD = model.encoder(Bags.from_csr(dataset.train.inputs))
        label_LD = model.encoder(Bags.from_csr(dataset.label_bags))
        encoded = torch.tanh(model.encoder_head(query_QD)), torch.tanh(model.encoder_head(label_LD))
        classified = model.classifier_head(query_QD), model.classifier.weight
        cosines = [F.cosine_similarity(q[:, None], label[None], dim=2) for q, label in (encoded, classified)]
        torch.testing.assert_close(model.score(Bags.from_csr(dataset.train.inputs)), sum(cosines) / 2)


def test_vectors_of_both_sides_have_unit_length(dataset: Dataset) -> None:
    model = build(dataset).eval()
    hidden = model.encoder(Bags.from_csr(dataset.train.inputs))
    for vectors, rows in ((model.query_vectors(hidden), 40), (model.label_vectors(), 8)):
        assert vectors.shape == (rows, 10)
        for half in vectors.split(5, dim=1):
            torch.testing.assert_close(half.norm(dim=1), torch.full((rows,), 0.5**0.5))


def test_label_vectors_are_computed_in_blocks(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(dataset).eval()
    whole = model.label_vectors()
    monkeypatch.setattr("training.methods.unidec.LABELS_AT_ONCE", 3)
    torch.testing.assert_close(model.label_vectors(), whole)


def test_label_vectors_are_kept_for_scoring_until_weights_may_change(dataset: Dataset) -> None:
    model = build(dataset).eval()
    bags = Bags.from_csr(dataset.train.inputs)
    with torch.no_grad():
        before = model.score(bags)
        kept = model._label_vectors_LD
        assert torch.equal(model.score(bags), before)
        assert model._label_vectors_LD is kept
        model.train()
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight))
        fresh = model.eval().score(bags)
    other = build(dataset, seed=1).eval()
    other.load_state_dict(model.state_dict())
    torch.testing.assert_close(fresh, other.score(bags))
    assert not torch.allclose(fresh, before)


def test_label_vectors_are_no_part_of_the_weights(dataset: Dataset) -> None:
    model = build(dataset).eval()
    names = set(model.state_dict())
    model.score(Bags.from_csr(dataset.train.inputs))
    assert set(model.state_dict()) == names
    assert not any("label" in name for name in names)


def test_refuses_labels_without_texts() -> None:
    with pytest.raises(UnsuitableData) as refusal:
        build(random_dataset())
    assert "label texts" in str(refusal.value)
    assert "mach and declare" in str(refusal.value)


def test_the_loss_is_that_of_its_parts(dataset: Dataset) -> None:
    model = build(dataset, encoder_weight=0.25)
    rows = batch(dataset)
    torch.manual_seed(3)
    pool = draw_pool(rows.positives, len(rows), 3, 6, model.label_counts_L)
    hidden_QD = model.encoder(rows.bags)
    labels = pool.labels_P.numpy()
    encoded_QD, encoded_PD = (
        F.normalize(torch.tanh(model.encoder_head(hidden)), dim=1)
        for hidden in (hidden_QD, model.encoder(Bags.from_csr(dataset.label_bags[labels])))
    )
    encoder_QP = 18 * encoded_QD @ encoded_PD.T
    classifier_QP = 18 * model.classifier_head(hidden_QD) @ model.classifier.weight[pool.labels_P].T
    query_to_label = losses.decoupled_softmax(encoder_QP, pool.targets_QP)
    label_to_query = losses.decoupled_softmax(encoder_QP.T, pool.targets_QP.T)
    classifier = losses.decoupled_softmax(classifier_QP, pool.targets_QP)
    expected = 0.25 * (query_to_label + label_to_query) / 2 + 0.75 * classifier
    torch.testing.assert_close(loss(model, dataset), expected)
    plain = build(dataset, encoder_weight=0.25, symmetric=False)
    torch.testing.assert_close(loss(plain, dataset), 0.25 * query_to_label + 0.75 * classifier)


def test_query_and_label_share_the_encoder(dataset: Dataset) -> None:
    model = build(dataset, encoder_weight=1.0)
    # A token that stands in label texts only still gets a gradient.
    inputs = dataset.train.inputs.toarray()
    inputs[:, 0] = 0
    rows = batch(dataset)
    bags = Bags.from_csr(type(dataset.train.inputs)(inputs.astype(np.float32)))
    label_bags = model.label_bags.toarray()
    label_bags[:, 0] = 1
    model.label_bags = type(dataset.train.inputs)(label_bags)
    torch.manual_seed(0)
    model.loss(replace(rows, bags=bags)).backward()  # type: ignore[no-untyped-call]
    assert model.encoder.bag.weight.grad[0].any()


def test_option_encoder_weight(dataset: Dataset) -> None:
    """At either end only one head learns."""
    for weight, silent, learning in (
        (1.0, "classifier_head", "encoder_head"),
        (0.0, "encoder_head", "classifier_head"),
    ):
        model = build(dataset, encoder_weight=weight)
        loss(model, dataset).backward()  # type: ignore[no-untyped-call]
        assert not model.get_submodule(silent).weight.grad.any()
        assert model.get_submodule(learning).weight.grad.any()
        assert model.classifier.weight.grad.any() == (weight == 0)


def test_option_logit_scale(dataset: Dataset) -> None:
    """At a scale next to nothing all scores are equal: each positive competes with the pool's negatives alone."""
    model = build(dataset, logit_scale=1e-6, symmetric=False)
    torch.manual_seed(3)
    pool = draw_pool(batch(dataset).positives, 40, 3, 6, model.label_counts_L)
    positives, negatives = (pool.targets_QP > 0).sum(dim=1), (pool.targets_QP == 0).sum(dim=1)
    expected = (1.0 + negatives[positives > 0]).log().mean().item()
    assert loss(model, dataset).item() == pytest.approx(expected, rel=1e-4)
    assert loss(build(dataset, logit_scale=18.0, symmetric=False), dataset).item() != pytest.approx(expected, rel=1e-2)


@pytest.mark.parametrize(("option", "values"), [("positives_per_query", (1, 3)), ("pool_size", (2, 6))])
def test_options_of_the_pool(option: str, values: tuple[int, int]) -> None:
    data = with_label_bags(random_dataset(rows=3, labels=30, per_row=(9,)))
    few, many = (loss(build(data, **{option: value}), data).item() for value in values)
    assert few != pytest.approx(many, rel=1e-4)


def test_option_dimensions(dataset: Dataset) -> None:
    assert build(dataset, dimensions=3).label_vectors().shape == (8, 6)


def test_option_dropout(dataset: Dataset) -> None:
    bags = Bags.from_csr(dataset.train.inputs)
    hidden = build(dataset).encoder(bags)
    dropped = build(dataset, dropout=0.5, dimensions=50)
    for head in (dropped.encode, dropped.classify):
        assert 0.3 < (head(hidden) == 0).float().mean() < 0.7
        dropped.eval()
        assert (head(hidden) != 0).all()
        dropped.train()
    assert loss(dropped, dataset, 1).item() != pytest.approx(loss(dropped.eval(), dataset, 1).item())


def test_rows_without_labels_are_no_trouble() -> None:
    data = with_label_bags(random_dataset(per_row=(0,)))
    value = loss(build(data), data)
    value.backward()  # type: ignore[no-untyped-call]
    assert value.item() == 0


def test_one_layer_of_512_below_the_heads() -> None:
    shape = Shape(input_width=10, label_count=5, train_rows=9, text=True, single_label=False)
    assert RunConfig(method=UnidecConfig()).resolved(shape).encoder.widths == (512,)
    assert Unidec.encoder_config(UnidecConfig(), BagConfig(widths=(3,)), shape).widths == (3,)
