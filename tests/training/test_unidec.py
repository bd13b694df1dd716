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
from training.data.batches import Bags, Batch, Rows
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


def cosines(model: Unidec, dataset: Dataset) -> dict[str, torch.Tensor]:
    """What each head gives every training row and label."""
    query_QD = model.encoder(Bags.from_csr(dataset.train.inputs))
    label_LD = model.encoder(Bags.from_csr(dataset.label_bags))
    heads = {
        "encoder": (torch.tanh(model.encoder_head(query_QD)), torch.tanh(model.encoder_head(label_LD))),
        "classifier": (model.classifier_head(query_QD), model.classifier.weight),
    }
    return {name: F.cosine_similarity(q[:, None], label[None], dim=2) for name, (q, label) in heads.items()}


@torch.no_grad()
def test_a_score_is_the_mean_of_two_cosines(dataset: Dataset) -> None:
    model = build(dataset).eval()
    expected = sum(cosines(model, dataset).values()) / 2
    torch.testing.assert_close(model.score(Bags.from_csr(dataset.train.inputs)), expected)


@torch.no_grad()
@pytest.mark.parametrize("head", ["encoder", "classifier"])
def test_option_inference(dataset: Dataset, head: str) -> None:
    """One head answers alone, with vectors as narrow as it is."""
    model = build(dataset, inference=head).eval()
    torch.testing.assert_close(model.score(Bags.from_csr(dataset.train.inputs)), cosines(model, dataset)[head])
    assert model.label_vectors().shape == (8, 5)


@torch.no_grad()
@pytest.mark.parametrize("heads", ["both", "encoder", "classifier"])
def test_vectors_of_both_sides_have_unit_length(dataset: Dataset, heads: Any) -> None:
    model = build(dataset).eval()
    hidden = model.encoder(Bags.from_csr(dataset.train.inputs))
    halves = 2 if heads == "both" else 1
    for vectors, rows in ((model.query_vectors(hidden, heads), 40), (model.label_vectors(heads), 8)):
        assert vectors.shape == (rows, 5 * halves)
        for half in vectors.split(5, dim=1):
            torch.testing.assert_close(half.norm(dim=1), torch.full((rows,), halves**-0.5))


def test_label_vectors_are_computed_in_blocks(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(dataset).eval()
    whole = model.label_vectors()
    monkeypatch.setattr("training.methods.unidec.ROWS_AT_ONCE", 3)
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
    assert "mach, declare and unidec's classifier alone (method.encoder_weight 0) work without" in str(refusal.value)


def test_the_classifier_alone_needs_no_label_texts() -> None:
    data = random_dataset()
    model = build(data, encoder_weight=0.0)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.03)
    for seed in range(60):
        optimiser.zero_grad()
        loss(model, data, seed).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    with torch.no_grad():
        best = model.eval().score(Bags.from_csr(data.train.inputs)).argmax(dim=1).numpy()
    assert np.mean([data.train.targets[[row], [label]][0] > 0 for row, label in enumerate(best)]) > 0.5  # by chance 1/4


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"symmetric": False},
        {"symmetric_classifier": True},
        {"encoder_loss": "supcon", "classifier_loss": "bce"},
        {"encoder_loss": "bce", "classifier_loss": "decoupled_softmax+bce", "symmetric": False},
    ],
    ids=str,
)
def test_the_loss_is_that_of_its_parts(dataset: Dataset, options: dict[str, Any]) -> None:
    model = build(dataset, encoder_weight=0.25, **options)
    rows = batch(dataset)
    torch.manual_seed(3)
    pool = draw_pool(rows.positives, len(rows), 3, 6, model.label_counts_L)
    hidden_QD = model.encoder(rows.bags)
    labels = pool.labels_P.numpy()
    encoded_QD, encoded_PD = (
        F.normalize(torch.tanh(model.encoder_head(hidden)), dim=1)
        for hidden in (hidden_QD, model.encoder(Bags.from_csr(dataset.label_bags[labels])))
    )
    scores = {
        "encoder": 18 * encoded_QD @ encoded_PD.T,
        "classifier": 18 * model.classifier_head(hidden_QD) @ model.classifier.weight[pool.labels_P].T,
    }
    symmetric = {"encoder": options.get("symmetric", True), "classifier": options.get("symmetric_classifier", False)}
    expected = sum(
        weight
        * losses.pool_loss(
            options.get(f"{head}_loss", "decoupled_softmax"),
            scores[head],
            pool.targets_QP,
            symmetric=symmetric[head],
        )
        for head, weight in (("encoder", 0.25), ("classifier", 0.75))
    )
    torch.testing.assert_close(loss(model, dataset), expected)


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


@pytest.mark.parametrize(("weight", "head"), [(1.0, "encoder"), (0.0, "classifier")])
def test_option_encoder_weight_at_either_end(dataset: Dataset, weight: float, head: str) -> None:
    """There is but one head, which answers alone and learns as it does beside the other."""
    model = build(dataset, encoder_weight=weight)
    names = {name.partition(".")[0] for name, _ in model.named_parameters()} - {"encoder"}
    assert names == {"encoder": {"encoder_head"}, "classifier": {"classifier_head", "classifier"}}[head]
    assert model.config.inference == head
    loss(model, dataset).backward()  # type: ignore[no-untyped-call]
    assert all(weight.grad is not None and weight.grad.any() for weight in model.parameters())
    other = build(dataset, encoder_weight=abs(weight - 1e-6))
    other.load_state_dict(model.state_dict(), strict=False)
    torch.testing.assert_close(loss(model, dataset), loss(other, dataset), rtol=1e-3, atol=0)


@pytest.mark.parametrize(("weight", "answers"), [(1.0, "classifier"), (1.0, "both"), (0.0, "encoder"), (0.0, "both")])
def test_a_head_that_is_not_trained_cannot_answer(weight: float, answers: str) -> None:
    trained = "encoder" if weight else "classifier"
    with pytest.raises(ValueError, match=f"inference {answers}: .* the {trained} head alone is trained"):
        UnidecConfig(encoder_weight=weight, inference=answers)  # type: ignore[arg-type]


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


def renewing(dataset: Dataset, **options: Any) -> Unidec:
    """A model that clusters and mines from the second epoch on, every other epoch."""
    return build(dataset, **{"clusters": True, "hard_negatives": 2, "start_epoch": 2, "refresh": 2} | options)


def begin(model: Unidec, epoch: int, dataset: Dataset) -> dict[str, torch.Tensor]:
    torch.manual_seed(epoch)
    model.begin_epoch(epoch, dataset)
    return {name: tensor.clone() for name, tensor in model.renewed().items()}


def test_options_start_epoch_and_refresh(dataset: Dataset) -> None:
    """Renewed where the weights have changed since, in the second and the fourth epoch only."""
    model = renewing(dataset)
    assert begin(model, 1, dataset) == {}
    kept = [begin(model, 2, dataset)]
    for epoch in (3, 4, 5):
        with torch.no_grad():
            model.encoder_head.weight.copy_(torch.randn_like(model.encoder_head.weight))
        kept.append(begin(model, epoch, dataset))
    for before, after, same in zip(kept[:-1], kept[1:], (True, False, True), strict=True):
        assert set(after) == {"order", "mined"}
        assert all(torch.equal(before[name], after[name]) == same for name in after)


@pytest.mark.parametrize(("options", "names"), [({"clusters": False}, {"mined"}), ({"hard_negatives": 0}, {"order"})])
def test_clusters_and_hard_negatives_do_without_each_other(
    dataset: Dataset, options: dict[str, Any], names: set[str]
) -> None:
    assert set(begin(renewing(dataset, **options), 2, dataset)) == names


def test_what_was_renewed_is_taken_over(dataset: Dataset) -> None:
    model, other = renewing(dataset), renewing(dataset)
    other.take_renewed(begin(model, 2, dataset))
    orders = [one.order(40, 8, np.random.default_rng(1)) for one in (model, other)]
    np.testing.assert_array_equal(*orders)
    assert loss(model.eval(), dataset).item() == loss(other.eval(), dataset).item()
    other.take_renewed({})
    np.testing.assert_array_equal(
        other.order(40, 8, np.random.default_rng(1)), np.random.default_rng(1).permutation(40)
    )


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_option_hard_negatives(dataset: Dataset, weight: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mined are the labels that the encoder head, or the classifier alone, takes for a row's own."""
    monkeypatch.setattr("training.methods.unidec.ROWS_AT_ONCE", 7)
    model = renewing(dataset, encoder_weight=weight, clusters=False, refresh=1, dropout=0.3)
    mined_NH = begin(model, 2, dataset)["mined"].numpy()
    heads: Any = "encoder" if weight else "classifier"
    with torch.no_grad():
        hidden = model.eval().encoder(Bags.from_csr(dataset.train.inputs))
        scores_NL = (model.query_vectors(hidden, heads) @ model.label_vectors(heads).T).numpy()
    scores_NL[dataset.train.targets.toarray() > 0] = -np.inf
    np.testing.assert_array_equal(mined_NH, np.argsort(-scores_NL, axis=1)[:, :2])


def test_a_pool_holds_the_hard_negatives_of_its_rows(dataset: Dataset) -> None:
    data = with_label_bags(random_dataset(rows=40, labels=300))
    model = renewing(data, pool_size=12)
    rows = np.array([5, 30])
    mined = {label for row in rows for label in begin(model, 2, data)["mined"][row].tolist()}
    assert len(mined) > 4  # of both rows, four times eta
    torch.manual_seed(0)
    pool = model._pool(Batch.from_rows(data.train, rows))
    assert len(mined & set(pool.labels_P.tolist())) >= 3  # two of each; the rows may share one


def test_option_clusters(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of the same kind share a batch: four kinds, eight rows each."""
    monkeypatch.setattr("training.methods.unidec.CLUSTER_ROWS", 2)
    kinds = np.random.default_rng(0).permutation(np.repeat(np.arange(4), 8))
    inputs = np.eye(4, 20, dtype=np.float32)[kinds]
    data = replace(dataset, train=Rows(type(dataset.train.inputs)(inputs), dataset.train.targets[:32]))
    model = renewing(data, hard_negatives=0)
    begin(model, 2, data)
    order = model._order_N
    assert order is not None
    assert (np.diff(kinds[order]) != 0).sum() == 3
    assert sorted(model.order(32, 8, np.random.default_rng(0)).tolist()) == list(range(32))
    shuffled = build(data).order(32, 8, np.random.default_rng(0))
    np.testing.assert_array_equal(shuffled, np.random.default_rng(0).permutation(32))


def test_rates_of_encoder_projections_and_label_vectors(dataset: Dataset) -> None:
    for weight, expected in (
        (
            0.5,
            {"encoder.bag": 7e-3, "encoder": 5e-4, "encoder_head": 1e-3, "classifier_head": 1e-3, "classifier": 4e-3},
        ),
        (1.0, {"encoder.bag": 7e-3, "encoder": 5e-4, "encoder_head": 1e-3}),
    ):
        model = build(dataset, encoder_weight=weight, classifier_rate=4.0)
        groups = model.parameter_groups(1e-3, 7.0, 0.5)
        rates = {id(weight): group["lr"] for group in groups for weight in group["params"]}
        found = {name.rpartition(".")[0]: rates[id(weight)] for name, weight in model.named_parameters()}
        assert found == pytest.approx(expected)
        assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))


def test_option_label_projection(dataset: Dataset) -> None:
    """With a projection of its own a label's text is no longer encoded as the same text of a query is."""
    assert dataset.label_bags is not None
    for projection, alike in (("shared", True), ("own", False)):
        model = build(dataset, label_projection=projection, inference="encoder").eval()
        queries_LD = model.query_vectors(model.encoder(Bags.from_csr(dataset.label_bags)))
        assert torch.allclose(queries_LD, model.label_vectors()) == alike


def test_label_texts_are_hashed_as_queries_are(dataset: Dataset) -> None:
    run = RunConfig(method=UnidecConfig(pool_size=6), encoder=BagConfig(widths=(6,), hashed_width=5))
    resolved = run.resolved(Shape.of(dataset))
    model = new_model(resolved, Shape.of(dataset))
    assert isinstance(model, Unidec)
    model.attach(Unidec.make_tables(resolved.method, dataset, 0))
    loss(model, dataset).backward()  # type: ignore[no-untyped-call]
    assert model.encoder.bag.weight.shape == (5, 6)
    assert model.encoder.bag.weight.grad is not None
    assert model.encoder.bag.weight.grad.any()
