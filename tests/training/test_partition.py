"""Learned re-partitioning: the best buckets against plain means, the assignment against loops, and runs that move."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.torch import load_file
from scipy.sparse import csr_array

from model_export.exporters.mach import MachExporter
from tests.training.synthetic import load, random_dataset, tiny
from tests.training.test_mach import build
from tests.training.test_resume import EPOCHS, assert_same_artifact, resume, stop_after
from training import hashing, partition
from training.artifact import read_artifact
from training.data.batches import Bags, Rows
from training.data.dataset import Dataset
from training.loop import fit
from training.methods.mach import Mach
from training.recipes import RunConfig


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    """Random rows of several relevances; label 7 is in none of them."""
    data = random_dataset(rows=50)
    targets_NL = data.train.targets.toarray() * np.random.default_rng(1).choice([0.25, 0.5, 1.0], (50, 8))
    targets_NL[:, 7] = 0
    return replace(data, train=Rows(data.train.inputs, csr_array(targets_NL.astype(np.float32))))


def plain_means(model: Mach, dataset: Dataset) -> NDArray[np.float64]:
    """Mean logit (L, R, B) of each label's rows, row by row in float64."""
    targets_NL = dataset.train.targets.toarray().astype(np.float64)
    with torch.no_grad():
        logits_NRB = model.eval()(Bags.from_csr(dataset.train.inputs)).double().numpy()
    totals_L = np.maximum(targets_NL.sum(axis=0), 1e-30)
    means: NDArray[np.float64] = np.einsum("nl,nrb->lrb", targets_NL, logits_NRB) / totals_L[:, None, None]
    return means


@pytest.mark.parametrize("networks", ["shared", "independent"])
@pytest.mark.parametrize("numbers", [1, 40, 1 << 24])
@pytest.mark.parametrize("rows", [7, 1024])
def test_best_buckets_have_the_largest_mean_logits(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch, networks: str, numbers: int, rows: int
) -> None:
    """However labels and rows are cut into blocks."""
    monkeypatch.setattr(partition, "NUMBERS_AT_ONCE", numbers)
    monkeypatch.setattr(partition, "ROWS_AT_ONCE", rows)
    model = build(dataset, networks=networks, buckets=6).eval()
    expected_LRB = plain_means(model, dataset)
    together = 3 // len(model.heads)
    found = [
        partition.best_buckets(model.encoding(encoder), head, dataset.train, (together, 6), 4)
        for encoder, head in zip(model.encoders, model.heads, strict=True)
    ]
    best_RLK = np.concatenate(found)
    assert best_RLK.shape == (3, 8, 4)
    for repetition in range(3):
        for label in range(7):
            means_B = expected_LRB[label, repetition]
            np.testing.assert_allclose(means_B[best_RLK[repetition, label]], np.sort(means_B)[::-1][:4], rtol=1e-4)


@st.composite
def assignments(draw: st.DrawFn) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], int]:
    labels, buckets = draw(st.integers(1, 12)), draw(st.integers(1, 5))
    order = st.permutations(range(buckets))
    best_LK = np.array([draw(order) for _ in range(labels)])[:, : draw(st.integers(1, buckets))]
    counts_L = np.array(draw(st.lists(st.integers(0, 3), min_size=labels, max_size=labels)))
    current_L = np.array(draw(st.lists(st.integers(0, buckets - 1), min_size=labels, max_size=labels)))
    return best_LK, counts_L, current_L, buckets


@given(assignments())
def test_assignment_equals_loops(case: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], int]) -> None:
    best_LK, counts_L, current_L, buckets = case
    expected = {label: int(current_L[label]) for label in range(len(counts_L)) if counts_L[label] == 0}
    for label in sorted(range(len(counts_L)), key=lambda label: (-counts_L[label], label)):
        if counts_L[label]:
            loads = [list(expected.values()).count(bucket) for bucket in best_LK[label]]
            expected[label] = int(best_LK[label][loads.index(min(loads))])
    found = partition.least_loaded(best_LK, counts_L, current_L, buckets)
    assert found.tolist() == [expected[label] for label in range(len(counts_L))]


def test_with_every_bucket_a_candidate_loads_are_equal() -> None:
    best_LK = np.argsort(np.random.default_rng(0).random((40, 8)), axis=1)
    found = partition.least_loaded(best_LK, np.ones(40, dtype=np.int64), np.zeros(40, dtype=np.int64), 8)
    assert np.bincount(found).tolist() == [5] * 8


def test_labels_move_where_it_is_time(dataset: Dataset) -> None:
    model = build(dataset, repartition_every=2, buckets=6)
    start = model.table_RL.clone()
    for epoch in (1, 2):
        model.begin_epoch(epoch, dataset)
        assert torch.equal(model.table_RL, start)
    model.begin_epoch(3, dataset)
    assert not torch.equal(model.table_RL, start)
    assert torch.equal(model.table_RL[:, 7], start[:, 7])  # nothing is known of a label without rows
    again = model.table_RL.clone()
    model.begin_epoch(4, dataset)
    assert torch.equal(model.table_RL, again)


def test_more_candidates_balance_more() -> None:
    data = random_dataset(rows=400, labels=64, width=40)
    largest = {}
    for count in (1, 2, 8, 100):  # more than there are buckets are all of them
        model = build(data, repartition_every=1, repartition_candidates=count, buckets=8)
        model.begin_epoch(2, data)
        largest[count] = max(np.bincount(row).max() for row in model.table_RL.numpy())
    assert largest[1] > largest[2] > largest[8] == largest[100] == 8


def moving(**training: object) -> RunConfig:
    run = tiny("mach", **training)
    return run.model_copy(update={"method": run.method.model_copy(update={"repartition_every": 1})})


def test_the_table_of_the_kept_epoch_is_exported(texts: Path, tmp_path: Path) -> None:
    """The first epoch's hashed table where that epoch is kept, else the one that its weights were trained with."""
    dataset, run = load(texts, moving(epochs=3))
    fit(run, dataset, tmp_path / "out", resume=False, log=print)
    artifact = read_artifact(tmp_path / "out")
    table_RL = artifact.tables["buckets"]
    assert table_RL.dtype == np.int32
    np.testing.assert_array_equal(load_file(tmp_path / "out" / "model.safetensors")["table_RL"].numpy(), table_RL)
    assert not np.array_equal(table_RL, hashing.bucket_table(8, 4, 8, 0))
    model = artifact.restore()
    assert isinstance(model, Mach)
    np.testing.assert_array_equal(model.table_RL.numpy(), table_RL)
    section = MachExporter(artifact).write_tables(tmp_path, "auto")
    assert section.hash.family == "learned"
    np.testing.assert_array_equal(np.load(tmp_path / "buckets.npy"), table_RL.T)


def test_an_unmoved_table_is_kept_where_the_first_epoch_is(texts: Path, tmp_path: Path) -> None:
    """Five of eight labels cover nearly all: the second epoch is no better, and the first is kept."""
    dataset, run = load(texts, moving(epochs=2, learning_rate=0.03, selection="coverage@5"))
    kept = fit(run, dataset, tmp_path / "out", resume=False, log=print)
    assert kept["epoch"] == 1
    table_RL = read_artifact(tmp_path / "out").tables["buckets"]
    np.testing.assert_array_equal(table_RL, hashing.bucket_table(8, 4, 8, 0))


@pytest.mark.parametrize("epoch", [1, 2, EPOCHS])
def test_a_resumed_run_moves_labels_as_an_uninterrupted_one(texts: Path, tmp_path: Path, epoch: int) -> None:
    run = moving(epochs=EPOCHS)
    run = run.model_copy(update={"method": run.method.model_copy(update={"repartition_every": 2})})
    dataset, resolved = load(texts, run)
    fit(resolved, dataset, tmp_path / "whole", resume=False, log=print)
    stop_after(epoch, texts, tmp_path / "stopped", run)
    resume(texts, tmp_path / "stopped", run)
    assert_same_artifact(tmp_path / "whole", tmp_path / "stopped")
