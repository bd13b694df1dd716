from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array, vstack

from tests.training.synthetic import load, tiny
from training.artifact import new_model, read_artifact
from training.augment import gandalf as module
from training.augment.gandalf import GandalfConfig, gandalf, soft_targets
from training.cli import DONE, main
from training.data.batches import Bags, Batch, Rows
from training.data.dataset import Dataset, UnsuitableData
from training.methods.base import Shape
from training.tokens import as_encoded
from training.twins import have_their_labels, rows_with_label_texts


@pytest.fixture(scope="module")
def dataset(texts: Path) -> Dataset:
    """No training point of which has a label's text."""
    dataset = load(texts, tiny("mach"))[0]
    assert dataset.label_bags is not None
    train, points = dataset.train, dataset.points
    while twins := rows_with_label_texts(train, dataset.label_bags):
        kept = np.setdiff1d(np.arange(len(train)), list(twins.values()))
        train, points = train.take(kept), points[kept]
    return replace(dataset, train=train, points=points)


def reference(member_NL: np.ndarray, threshold: float, most: int, own_target: bool) -> np.ndarray:
    """The definition, dense and label by label."""
    together_LL = member_NL.T.astype(np.int64) @ member_NL
    targets_LL = np.zeros(together_LL.shape)
    for i, row in enumerate(together_LL):
        shares = {j: row[j] / together_LL[j, j] for j in range(len(row)) if j != i and row[j]}
        above = sorted((-share, j) for j, share in shares.items() if share > threshold)
        for share, j in above[:most]:
            targets_LL[i, j] = -share
        targets_LL[i, i] = own_target
    return targets_LL


@given(st.data())
def test_soft_targets_are_those_of_the_definition(data: st.DataObject) -> None:
    N, L = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 8))
    seed = data.draw(st.integers(0, 2**32 - 1))
    relevances_NL = np.random.default_rng(seed).choice([0, 0, 0.5, 1, 3], size=(N, L)).astype(np.float32)
    threshold = data.draw(st.sampled_from([0.0, 0.1, 0.5]))
    most = data.draw(st.integers(0, L))
    labels = np.flatnonzero(np.random.default_rng(seed + 1).random(L) < 0.7)
    labels = labels if len(labels) else np.array([0])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "COUNTED_AT_ONCE", data.draw(st.sampled_from([1, 20, 10_000])))
        own_target = data.draw(st.booleans())
        found = soft_targets(csr_array(relevances_NL), labels, threshold, most, own_target=own_target)
    assert found.has_sorted_indices
    expected = reference(relevances_NL > 0, threshold, most, own_target)[labels]
    np.testing.assert_allclose(found.toarray(), expected, rtol=1e-6)


def test_the_threshold_is_strict() -> None:
    """Label 0 shares one of label 1's ten points."""
    member_NL = np.zeros((10, 2), dtype=np.float32)
    member_NL[:, 1] = 1
    member_NL[0, 0] = 1
    targets = soft_targets(csr_array(member_NL), np.arange(2), 0.1, 50, own_target=True).toarray()
    np.testing.assert_array_equal(targets, [[1, 0], [1, 1]])


def test_label_texts_become_points(dataset: Dataset) -> None:
    larger = gandalf(dataset, GandalfConfig())
    assert dataset.label_bags is not None
    rows, labels = len(dataset.train), dataset.label_count
    assert len(larger.train) == rows + labels
    for part, whole in ((dataset.train.inputs, larger.train.inputs), (dataset.train.targets, larger.train.targets)):
        np.testing.assert_array_equal(whole[:rows].toarray(), part.toarray())
    np.testing.assert_array_equal(larger.train.inputs[rows:].toarray(), dataset.label_bags.toarray())
    assert (larger.train.targets[rows:].diagonal() == 1).all()
    assert larger.validation is dataset.validation
    assert larger.label_counts is dataset.label_counts


def test_label_texts_become_points_in_reading_order_too(texts: Path) -> None:
    run = tiny("mach-reranked")
    dataset = load(texts, run)[0]
    assert dataset.train.words is not None
    assert dataset.label_words is not None
    larger = gandalf(dataset, GandalfConfig(fraction=0.6)).train
    assert larger.words is not None
    rows = len(dataset.train)
    assert rows < len(larger) < rows + dataset.label_count
    np.testing.assert_array_equal(larger.words.indices[: dataset.train.words.nnz], dataset.train.words.indices)
    labels = [int(larger.targets[[row]].argmax()) for row in range(rows, len(larger))]
    assert labels != list(range(len(labels)))
    for row, label in enumerate(labels, rows):
        np.testing.assert_array_equal(larger.words[[row]].indices, dataset.label_words[[label]].indices)
    assert (as_encoded(larger.words, run.texts) != larger.inputs).nnz == 0


def test_a_fraction_takes_the_rarest_labels(dataset: Dataset) -> None:
    larger = gandalf(dataset, GandalfConfig(fraction=0.4, most_targets=0))
    taken = larger.train.targets[len(dataset.train) :].indices
    counts = np.bincount(dataset.train.targets.indices, minlength=dataset.label_count)
    left = np.setdiff1d(np.arange(dataset.label_count), taken)
    assert len(taken) == round(0.4 * dataset.label_count)
    assert counts[taken].max() <= counts[left].min()


@pytest.mark.parametrize(("offset", "own_target"), [(0, True), (1, False)])
def test_a_label_is_no_target_of_its_own_text_where_training_points_contradict_it(
    dataset: Dataset, offset: int, own_target: bool
) -> None:
    """Two points have a label's text: with that label in their own they speak for it, with another against it."""
    assert dataset.label_bags is not None
    targets = csr_array(np.eye(2, dataset.label_count, offset, dtype=np.float32))
    like = replace(dataset, train=Rows(dataset.label_bags[:2], targets))
    twins = rows_with_label_texts(like.train, dataset.label_bags)
    assert twins == {0: 0, 1: 1}
    assert have_their_labels(like.train, twins) is own_target
    points = gandalf(like, GandalfConfig()).train.targets[2:]
    assert points.nnz == (dataset.label_count - 2 if own_target else 0)


def test_a_label_whose_text_is_a_training_point_is_left_to_it(dataset: Dataset) -> None:
    assert dataset.label_bags is not None
    inputs = vstack([dataset.label_bags[3:4], dataset.train.inputs[1:]], format="csr")
    larger = gandalf(replace(dataset, train=Rows(csr_array(inputs), dataset.train.targets)), GandalfConfig())
    assert len(larger.train) == len(dataset.train) + dataset.label_count - 1


def test_nothing_is_added_where_every_label_text_is_a_training_point(dataset: Dataset) -> None:
    assert dataset.label_bags is not None
    targets = csr_array(np.eye(dataset.label_count, dtype=np.float32))
    like = replace(dataset, train=Rows(dataset.label_bags, targets))
    assert len(gandalf(like, GandalfConfig()).train) == dataset.label_count


def test_rows_are_compared_by_their_bags(dataset: Dataset) -> None:
    assert have_their_labels(dataset.train, {})
    assert dataset.label_bags is not None
    other = dataset.label_bags[:1].copy()
    other.data = other.data + 1
    assert rows_with_label_texts(Rows(other, dataset.train.targets[:1]), dataset.label_bags) == {}


def test_a_label_without_targets_is_no_point(dataset: Dataset) -> None:
    larger = gandalf(dataset, GandalfConfig(own_target=False, most_targets=0))
    assert len(larger.train) == len(dataset.train)


def test_labels_without_a_known_token_are_left_out(dataset: Dataset) -> None:
    assert dataset.label_bags is not None
    bags = dataset.label_bags.tolil()
    bags[2] = 0
    larger = gandalf(replace(dataset, label_bags=csr_array(bags.tocsr())), GandalfConfig())
    assert len(larger.train) == len(dataset.train) + dataset.label_count - 1
    with pytest.raises(UnsuitableData, match="no label text has a known token"):
        gandalf(replace(dataset, label_bags=csr_array(dataset.label_bags.shape)), GandalfConfig())


def test_data_without_label_texts_is_refused(dataset: Dataset) -> None:
    with pytest.raises(UnsuitableData, match="gandalf turns label texts into training points"):
        gandalf(replace(dataset, label_bags=None), GandalfConfig())


@pytest.mark.parametrize("recipe", ["mach-gandalf", "declare-gandalf", "unidec-gandalf"])
def test_every_method_learns_from_label_texts(texts: Path, tmp_path: Path, recipe: str) -> None:
    options = ["training.epochs=1", "encoder.widths=[12]", "vocabulary.words=40", "vocabulary.min_count=1"]
    arguments = ["fit", "--data", str(texts), "--recipe", recipe, "--out", str(tmp_path / "out")]
    assert main([*arguments, *(f"--set={option}" for option in options)]) == DONE
    assert read_artifact(tmp_path / "out").config.run.augmentation == GandalfConfig()


def test_a_label_is_found_by_its_text_after_training_on_label_points_alone(texts: Path, dataset: Dataset) -> None:
    plain, run = dataset, load(texts, tiny("mach"))[1]
    larger = gandalf(plain, GandalfConfig(most_targets=0))
    assert plain.label_bags is not None
    only_labels = replace(larger, train=larger.train.take(np.arange(len(plain.train), len(larger.train))))
    torch.manual_seed(0)
    model = new_model(run, Shape.of(plain))
    model.attach(type(model).make_tables(run.method, only_labels, 0))
    model.initialise(only_labels)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.05)
    batch = Batch.from_rows(only_labels.train, np.arange(len(only_labels.train)))
    for _ in range(60):
        optimiser.zero_grad()
        model.loss(batch).backward()
        optimiser.step()
    model.eval()
    best = model.score(Bags.from_csr(plain.label_bags)).argmax(dim=1).numpy()
    assert (best == np.arange(plain.label_count)).mean() > 0.8
