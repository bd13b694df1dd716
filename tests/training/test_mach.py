"""MACH: bucket targets and merging against loops, estimators, networks, starting biases and derived sizes."""

from __future__ import annotations

import statistics
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.training.synthetic import batch, feature_dataset, matrix, random_dataset
from training.artifact import new_model
from training.data.batches import Bags, Positives
from training.data.dataset import Dataset, UnsuitableData
from training.encoders import BagConfig
from training.methods.base import Shape
from training.methods.mach import Aggregation, Mach, MachConfig, merge
from training.recipes import RunConfig

AGGREGATIONS: tuple[Aggregation, ...] = get_args(Aggregation)


def build(dataset: Dataset, *, seed: int = 0, dropout: float = 0.0, **options: Any) -> Mach:
    """An untrained MACH of a data set, with its table attached."""
    config = MachConfig(**{"repetitions": 3, "buckets": 4} | options)
    run = RunConfig(method=config, encoder=BagConfig(widths=(6,), dropout=dropout)).resolved(Shape.of(dataset))
    torch.manual_seed(seed)
    model = new_model(run, Shape.of(dataset))
    assert isinstance(model, Mach)
    model.attach(Mach.make_tables(run.method, dataset, seed))
    return model


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return random_dataset()


targets = st.lists(
    st.dictionaries(st.integers(0, 7), st.floats(0.125, 1, width=32), max_size=8), min_size=1, max_size=5
)


@given(rows=targets, buckets=st.integers(2, 9), seed=st.integers(0, 50))
def test_a_bucket_is_as_relevant_as_its_most_relevant_true_label(
    dataset: Dataset, rows: list[dict[int, float]], buckets: int, seed: int
) -> None:
    # Eight labels in two to nine buckets: most rows have labels that collide.
    model = build(dataset, buckets=buckets, seed=seed)
    found = model.bucket_targets(Positives.from_csr(matrix(rows, 8)), len(rows)).view(len(rows), 3, buckets)
    expected = np.zeros((len(rows), 3, buckets))
    for row, relevances in enumerate(rows):
        for label, relevance in relevances.items():
            for repetition in range(3):
                bucket = int(model.table_RL[repetition, label])
                expected[row, repetition, bucket] = max(expected[row, repetition, bucket], relevance)
    np.testing.assert_array_equal(found.numpy(), expected)


def test_relevances_above_one_count_as_one(dataset: Dataset) -> None:
    """Cross-entropy has no lower bound for targets above 1; data may state any weight."""
    model = build(dataset)
    positives = Positives.from_csr(matrix([{0: 7.0, 3: 0.5}], 8))
    assert model.bucket_targets(positives, 1).max() == 1


def naive_merge(
    logits_QRB: NDArray[np.float64], table_RL: NDArray[np.int64], how: str, *, softmax: bool
) -> NDArray[np.float64]:
    queries, repetitions, buckets = logits_QRB.shape
    merged_QL = np.zeros((queries, table_RL.shape[1]))
    for query in range(queries):
        for label in range(table_RL.shape[1]):
            logits, probabilities = [], []
            for repetition in range(repetitions):
                row, own = logits_QRB[query, repetition], logits_QRB[query, repetition, table_RL[repetition, label]]
                logits.append(own)
                probabilities.append(np.exp(own) / np.exp(row).sum() if softmax else 1 / (1 + np.exp(-own)))
            mean = sum(probabilities) / repetitions
            merged_QL[query, label] = {
                "sum_logits": sum(logits),
                "mean_prob": mean,
                "unbiased": buckets / (buckets - 1) * (mean - 1 / buckets),
                "min": min(probabilities),
                "median": statistics.median(probabilities),
            }[how]
    return merged_QL


@given(
    queries=st.integers(1, 3),
    repetitions=st.integers(1, 5),
    buckets=st.integers(2, 6),
    labels=st.integers(1, 9),
    softmax=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_merging_equals_loops(
    queries: int, repetitions: int, buckets: int, labels: int, softmax: bool, seed: int
) -> None:
    draw = np.random.default_rng(seed)
    logits_QRB = draw.normal(scale=4, size=(queries, repetitions, buckets))
    table_RL = draw.integers(buckets, size=(repetitions, labels))
    tensors = torch.from_numpy(logits_QRB), torch.from_numpy(table_RL)
    for how in AGGREGATIONS:
        found = merge(*tensors, how, softmax=softmax).numpy()
        np.testing.assert_allclose(
            found, naive_merge(logits_QRB, table_RL, how, softmax=softmax), rtol=1e-9, atol=1e-12
        )
    mean, unbiased = (merge(*tensors, how, softmax=softmax).numpy() for how in ("mean_prob", "unbiased"))
    for left, right in zip(mean, unbiased, strict=True):
        apart = np.abs(left[:, None] - left) > 1e-12
        np.testing.assert_array_equal((left[:, None] > left) & apart, (right[:, None] > right) & apart)


def test_merging_by_hand() -> None:
    # Probabilities 1/2, 4/5 and 1/5 of the buckets a label is in; B = 2.
    logits = torch.tensor([[[0.0, 9.0], [-9.0, np.log(4)], [np.log(0.25), 9.0]]], dtype=torch.float64)
    table = torch.tensor([[0], [1], [0]])
    found = {how: merge(logits, table, how, softmax=False).item() for how in AGGREGATIONS}
    expected = {"sum_logits": 0.0, "mean_prob": 0.5, "unbiased": 0.0, "min": 0.2, "median": 0.5}
    assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("how", AGGREGATIONS)
@pytest.mark.parametrize("loss", ["bce", "softmax"])
def test_scores_are_the_merged_logits(how: Aggregation, loss: str) -> None:
    single = random_dataset(per_row=(1,))
    model = build(single, aggregation=how, loss=loss).eval()
    bags = Bags.from_csr(single.train.inputs)
    expected = merge(model(bags), model.table_RL, how, softmax=loss == "softmax")
    torch.testing.assert_close(model.score(bags), expected)


def test_loss_of_several_labels_is_sigmoid_cross_entropy(dataset: Dataset) -> None:
    model = build(dataset)
    rows = batch(dataset)
    probabilities = model(rows.bags).double().sigmoid().flatten(1)
    wanted = model.bucket_targets(rows.positives, len(rows)).double()
    cells = -(wanted * probabilities.log() + (1 - wanted) * (1 - probabilities).log())
    assert model.loss(rows).item() == pytest.approx(cells.sum().item() / len(rows) / 3, rel=1e-5)


def test_loss_of_one_label_is_softmax_cross_entropy() -> None:
    single = random_dataset(per_row=(1,))
    model = build(single)
    assert model.config.loss == "softmax"
    rows = batch(single)
    logarithms = model(rows.bags).double().log_softmax(dim=2)
    picked = [
        logarithms[row, repetition, model.table_RL[repetition, label]].item()
        for row, label in enumerate(rows.positives.labels)
        for repetition in range(3)
    ]
    assert model.loss(rows).item() == pytest.approx(-sum(picked) / len(rows) / 3, rel=1e-5)


@pytest.mark.parametrize(
    ("per_row", "option", "expected"),
    [
        ((1,), "auto", "softmax"),
        ((1, 2), "auto", "bce"),
        ((0, 1), "auto", "bce"),
        ((1,), "bce", "bce"),
        ((1,), "softmax", "softmax"),
    ],
)
def test_loss_follows_the_labels_per_row(per_row: tuple[int, ...], option: Any, expected: str) -> None:
    shape = Shape.of(random_dataset(per_row=per_row))
    assert MachConfig(loss=option).resolved(shape).loss == expected


def test_softmax_of_several_labels_is_refused() -> None:
    with pytest.raises(UnsuitableData, match=r"softmax.*one label"):
        build(random_dataset(per_row=(1, 2)), loss="softmax")


def test_shared_networks_have_one_encoder(dataset: Dataset) -> None:
    shared, independent = build(dataset), build(dataset, networks="independent")
    assert (len(shared.encoders), len(shared.heads)) == (1, 1)
    assert (len(independent.encoders), len(independent.heads)) == (3, 3)
    bags = Bags.from_csr(dataset.train.inputs)
    assert shared(bags).shape == independent(bags).shape == (40, 3, 4)


@pytest.mark.parametrize("repetition", range(3))
def test_independent_networks_learn_nothing_from_each_other(dataset: Dataset, repetition: int) -> None:
    model = build(dataset, networks="independent")
    rows = batch(dataset)
    model(rows.bags)[:, repetition].square().sum().backward()
    for other, (encoder, head) in enumerate(zip(model.encoders, model.heads, strict=True)):
        touched = [
            weight.grad is not None and bool(weight.grad.any())
            for weight in (*encoder.parameters(), *head.parameters())
        ]
        assert all(touched) if other == repetition else not any(touched)


def test_an_independent_network_trains_as_if_it_were_alone(dataset: Dataset) -> None:
    joint = build(dataset, networks="independent")
    rows = batch(dataset)
    alone = [build(dataset, networks="independent", repetitions=1) for _ in range(3)]
    for repetition, single in enumerate(alone):
        single.encoders.load_state_dict(
            {
                k.replace(f"{repetition}.", "0.", 1): v
                for k, v in joint.encoders.state_dict().items()
                if k.startswith(f"{repetition}.")
            }
        )
        single.heads[0].load_state_dict(joint.heads[repetition].state_dict())
        single.attach({"buckets": joint.table_RL[repetition : repetition + 1].numpy()})
    for model in (joint, *alone):
        # The loss is a mean over repetitions, so a network alone takes steps R times as long.
        optimiser = torch.optim.SGD(model.parameters(), lr=0.3 / (1 if model is joint else 3))
        for _ in range(5):
            optimiser.zero_grad()
            model.loss(rows).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    for repetition, single in enumerate(alone):
        torch.testing.assert_close(joint(rows.bags)[:, repetition], single(rows.bags)[:, 0])


@pytest.mark.parametrize("networks", ["shared", "independent"])
def test_biases_start_at_the_log_odds_of_their_bucket(networks: str) -> None:
    # Label 0 in all four rows, label 1 in one: with many buckets they do not collide.
    rows = [{0: 1.0, 1: 1.0}, {0: 1.0}, {0: 1.0}, {0: 1.0}]
    data = feature_dataset([{0: 1.0}] * 4, rows, width=2, labels=3)
    model = build(data, networks=networks, buckets=64)
    model.initialise(data)
    biases_RB = torch.cat([head.bias for head in model.heads]).view(3, 64)
    for repetition in range(3):
        first, second, never = (biases_RB[repetition, bucket].item() for bucket in model.table_RL[repetition])
        assert first == 0  # its share, 4.5 / 5, is cut at one half: a bucket starts no more likely than not
        assert second == pytest.approx(np.log(1.5 / 3.5), rel=1e-5)
        assert never == pytest.approx(np.log(0.5 / 4.5), rel=1e-5)


def test_biases_of_a_softmax_start_at_the_log_shares() -> None:
    data = feature_dataset([{0: 1.0}] * 4, [{0: 1.0}, {0: 1.0}, {0: 1.0}, {1: 1.0}], width=2, labels=2)
    model = build(data, buckets=64)
    model.initialise(data)
    shares = model.heads[0].bias.view(3, 64).exp()
    for repetition in range(3):
        assert shares[repetition, model.table_RL[repetition]].tolist() == pytest.approx([3.5 / 5, 1.5 / 5], rel=1e-5)


@pytest.mark.parametrize(
    ("labels", "repetitions", "buckets", "widths"),
    [
        (2, 32, 16, (500, 500)),
        (159, 32, 64, (500, 500)),
        (4_096, 32, 512, (500, 500)),
        (4_097, 16, 512, (500, 500)),
        (28_077, 16, 1024, (500, 500)),
        (32_768, 16, 1024, (500, 500)),
        (32_769, 16, 1024, (1024,)),
        (524_288, 16, 4096, (1024,)),
        (524_289, 16, 4096, (4096,)),
        (2_812_281, 16, 8192, (4096,)),
    ],
)
def test_sizes_derived_from_the_number_of_labels(
    labels: int, repetitions: int, buckets: int, widths: tuple[int, ...]
) -> None:
    shape = Shape(input_width=10, label_count=labels, train_rows=1000, text=True, single_label=False)
    run = RunConfig(method=MachConfig()).resolved(shape)
    assert isinstance(run.method, MachConfig)
    assert (run.method.repetitions, run.method.buckets, run.encoder.widths) == (repetitions, buckets, widths)


def test_given_sizes_are_kept() -> None:
    shape = Shape(input_width=10, label_count=100, train_rows=1000, text=True, single_label=False)
    config = MachConfig(repetitions=5, buckets=7)
    assert config.resolved(shape) == config.model_copy(update={"loss": "bce"})
    encoder = BagConfig(widths=(9, 8))
    assert Mach.encoder_config(config, encoder, shape) == encoder
