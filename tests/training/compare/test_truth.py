"""Scores of a ranking, the parts that labels are cut into, and what every ranking is compared with."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.training.synthetic import LABELS, matrix, write_features
from training.artifact import read_artifact
from training.cli import DONE, main
from training.compare.truth import KS, Truth, constant_ranking, read_truth, score, split_labels, without
from training.data.records import open_source
from training.evaluation import evaluate_artifact
from training.metrics import PADDING
from training.ranking import read_ranking


@pytest.fixture(scope="module")
def truth(features: Path) -> Truth:
    return read_truth(open_source(features))


def ranking(truth: Truth, seed: int = 0) -> np.ndarray:
    """All labels in a drawn order, padded to 100 places."""
    draw = np.random.default_rng(seed)
    rows = truth.targets_NL.shape[0]
    ranked_NK = np.full((rows, max(KS)), PADDING)
    ranked_NK[:, :LABELS] = draw.permuted(np.tile(np.arange(LABELS), (rows, 1)), axis=1)
    return ranked_NK


def test_scores_are_those_of_evaluate(features: Path, tmp_path: Path) -> None:
    """The same model by both ways: through the ranking's file, and through the command that measures artifacts."""
    small = ["--set", "method.repetitions=2", "method.buckets=4", "encoder.widths=[4]", "training.epochs=1"]
    out, file = str(tmp_path / "out"), tmp_path / "ranking.npy"
    assert main(["fit", "--data", str(features), "--method", "mach", "--out", out, *small]) == DONE
    assert main(["evaluate", out, "--data", str(features), "--ranking", str(file)]) == DONE
    source = open_source(features)
    truth = read_truth(source)
    scores = score(read_ranking(file, *truth.targets_NL.shape), truth).measures
    expected = evaluate_artifact(read_artifact(tmp_path / "out"), source, "tst", KS)
    assert scores == pytest.approx({name: expected[name] for name in scores})


def test_parts_add_up_to_precision(truth: Truth) -> None:
    scores = score(ranking(truth), truth)
    assert len(truth.parts) > 1
    assert sum(scores.part_precision.values()) == pytest.approx(scores.measures["P@5"])
    found = sum(scores.part_recall[part.name] * part.positives for part in truth.parts)
    assert found / 100 == pytest.approx(scores.measures["P@5"] / 100 * 5 * truth.targets_NL.shape[0])


def test_a_perfect_ranking_finds_every_part(truth: Truth) -> None:
    ranked_NK = np.full((truth.targets_NL.shape[0], max(KS)), PADDING)
    for row, labels in enumerate(np.split(truth.targets_NL.indices, truth.targets_NL.indptr[1:-1])):
        ranked_NK[row, : len(labels)] = labels
    assert score(ranked_NK, truth).part_recall == pytest.approx({part.name: 100 for part in truth.parts})


def test_the_constant_ranking_is_by_training_frequency(truth: Truth) -> None:
    ranked_NK = constant_ranking(truth)
    assert ranked_NK.shape == (truth.targets_NL.shape[0], 100)
    counts = truth.label_counts_L[ranked_NK[0, :LABELS]]
    assert (np.diff(counts) <= 0).all()
    assert (ranked_NK[:, LABELS:] == PADDING).all()
    assert (ranked_NK == ranked_NK[0]).all()


def test_filtered_pairs_are_no_predictions(tmp_path: Path) -> None:
    folder = write_features(tmp_path / "data")
    before = read_truth(open_source(folder))
    first = int(before.targets_NL.indices[0])
    (folder / "filter_labels_test.txt").write_text(f"0 {first}\n")
    truth = read_truth(open_source(folder))
    ranked_NK = np.full((truth.targets_NL.shape[0], max(KS)), PADDING)
    ranked_NK[0, 0] = first
    assert score(ranked_NK, before).measures["P@1"] > 0
    assert score(ranked_NK, truth).measures["P@1"] == 0


def test_what_is_taken_out_is_closed_up() -> None:
    removed = matrix([{2: 1.0, 0: 1.0}, {}], 5)
    found = without(np.array([[4, 2, 3, 0, 1], [0, 1, 2, 3, 4]]), removed)
    assert found.tolist() == [[4, 3, 1, PADDING, PADDING], [0, 1, 2, 3, 4]]


def test_the_digest_is_that_of_the_test_split(truth: Truth, tmp_path: Path) -> None:
    same = read_truth(open_source(write_features(tmp_path / "same")))
    other = read_truth(open_source(write_features(tmp_path / "other", seed=1)))
    assert truth.digest == same.digest
    assert truth.digest != other.digest


def test_parts_by_hand() -> None:
    """Nine test positives: three of the label seen 10 times, three of those seen 4 times, three of the rest."""
    parts, part_L = split_labels(np.array([4, 10, 0, 4, 1]), np.array([1, 3, 1, 2, 2]))
    assert [(part.name, part.least, part.most, part.labels, part.positives) for part in parts] == [
        ("head", 10, 10, 1, 3),
        ("torso", 4, 4, 2, 3),
        ("tail", 0, 1, 2, 3),
    ]
    assert part_L.tolist() == [1, 0, 2, 1, 2]


@given(data=st.data(), labels=st.integers(1, 12))
def test_parts_are_ranges_of_frequencies_that_hold_every_label(data: st.DataObject, labels: int) -> None:
    numbers = st.lists(st.integers(0, 6), min_size=labels, max_size=labels).map(np.array)
    counts, positives = data.draw(numbers), data.draw(numbers)
    parts, part_L = split_labels(counts, positives)
    assert 1 <= len(parts) <= 3
    assert sum(part.labels for part in parts) == labels
    assert sum(part.positives for part in parts) == positives.sum()
    for place, part in enumerate(parts):
        inside = counts[part_L == place]
        assert (inside.min(), inside.max()) == (part.least, part.most)
    for more, fewer in pairwise(parts):
        assert more.least > fewer.most
