"""From scores to measures: order, ties, the filter file, the constant predictor, and data of another model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor, nn

from tests.training.synthetic import LABELS, load, matrix, tiny, write_features, write_texts
from training import evaluation, metrics
from training.artifact import Artifact, read_artifact
from training.calibration import Calibration, PlattMap, RankMap
from training.data.batches import Bags, Rows
from training.data.card import Card
from training.data.dataset import UnsuitableData, read_rows
from training.data.records import open_source
from training.loop import fit
from training.team import ALONE


class Scores(nn.Module):
    """A scorer whose scores are given: bag i holds feature i, and its scores are row i."""

    team = ALONE

    def __init__(self, scores_NL: Sequence[Sequence[float]] | NDArray[np.float64]) -> None:
        super().__init__()
        self.scores_NL = nn.Parameter(torch.tensor(np.array(scores_NL), dtype=torch.float32))

    def score(self, bags: Bags) -> Tensor:
        assert not self.training
        return self.scores_NL[bags.ids].clone()

    def scores_per_query(self, label_count: int) -> int:
        return label_count


def ranking(
    scores_NL: Sequence[Sequence[float]] | NDArray[np.float64], k: int, removed: csr_array | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    rows, labels = np.shape(scores_NL)
    inputs = matrix([{row: 1.0} for row in range(rows)], rows)
    return evaluation.ranking(Scores(scores_NL), inputs, labels, k, removed)  # type: ignore[arg-type]


def rank(
    scores_NL: Sequence[Sequence[float]] | NDArray[np.float64], k: int, removed: csr_array | None = None
) -> NDArray[np.int64]:
    return ranking(scores_NL, k, removed)[0]


@given(
    scores_NL=hnp.arrays(
        np.float64,
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=30),
        elements=st.one_of(st.sampled_from([0.0, 1.0]), st.floats(-5, 5, width=32)),
    ),
    k=st.integers(1, 35),
)
def test_ranks_by_score_and_ties_by_row(scores_NL: NDArray[np.float64], k: int) -> None:
    expected = np.argsort(-scores_NL, axis=1, kind="stable")[:, :k]
    labels = scores_NL.shape[1]
    ranked, scores = ranking(scores_NL, k)
    np.testing.assert_array_equal(ranked[:, :labels], expected)
    np.testing.assert_array_equal(scores[:, :labels], np.take_along_axis(scores_NL, expected, axis=1))
    assert (ranked[:, labels:] == metrics.PADDING).all()
    assert np.isnan(scores[:, labels:]).all()


def test_rows_are_scored_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = np.random.default_rng(0).random((7, 5))
    whole = rank(scores, 3)
    removed = matrix([{int(row[0]): 1.0} for row in whole], 5)
    without = rank(scores, 3, removed)
    np.testing.assert_array_equal(without[:, :2], whole[:, 1:])
    monkeypatch.setattr("training.evaluation.SCORES_AT_ONCE", 10)
    np.testing.assert_array_equal(rank(scores, 3), whole)
    np.testing.assert_array_equal(rank(scores, 3, removed), without)


def test_filtered_pairs_are_removed_before_the_top_k() -> None:
    scores = [[0.9, 0.5, 0.1], [0.9, 0.5, 0.1], [-0.9, -0.5, -0.1]]
    removed = matrix([{0: 1.0}, {}, {2: 1.0, 1: 1.0}], 3)
    ranked = rank(scores, 2, removed)
    assert ranked[:2].tolist() == [[1, 2], [0, 1]]
    assert ranked[2, 0] == 0


def test_a_filtered_pair_never_counts_as_predicted() -> None:
    """Not even where fewer labels than ranks are left, as the last of them."""
    ranked, scores = ranking([[0.9, 0.5, 0.1]], 3, matrix([{0: 1.0}], 3))
    assert ranked.tolist() == [[1, 2, metrics.PADDING]]
    assert scores[0].tolist() == pytest.approx([0.5, 0.1, np.nan], nan_ok=True)


def evaluate(
    scores_NL: Sequence[Sequence[float]],
    truth: Sequence[dict[int, float]],
    ks: Sequence[int],
    calibration: Calibration | None = None,
) -> dict[str, float]:
    """Measures of given scores, for labels of which the first is the most frequent."""
    labels = len(scores_NL[0])
    rows = Rows(matrix([{row: 1.0} for row in range(len(truth))], len(truth)), matrix(truth, labels))
    card = Card("given", "features", labels, len(truth), has_label_texts=False, propensity_a=0.5, propensity_b=3)
    counts = np.array([13, 6, 1, *[0] * (labels - 3)])
    return evaluation.evaluate(Scores(scores_NL), rows, counts, 100, card, ks, calibration=calibration)  # type: ignore[arg-type]


def test_measures_by_hand() -> None:
    # Inverse propensities 2.80, 3.40, 4.61 (see test_metrics); label 0 is the constant predictor's only guess.
    found = evaluate([[0.1, 0.9, 0.5], [0.9, 0.1, 0.5]], [{1: 1.0}, {2: 1.0}], [1])
    assert found["P@1"] == 50
    assert found["PSP@1"] == pytest.approx(100 * 3.403446791 / (3.403446791 + 4.605170186))
    assert found["constant_P@1"] == 0
    assert evaluate([[0.1, 0.9, 0.5]] * 4, [{0: 1.0}, {0: 1.0, 1: 1.0}, {}, {2: 1.0}], [1])["constant_P@1"] == 50


def test_calibration_errors_are_of_the_ranks_up_to_k() -> None:
    """Rank 1 says 0.75 and is right in one row of two; rank 2 says 0.25 and never is; there is no rank 4."""
    maps = [PlattMap(slope=0, intercept=np.log(odds)) for odds in (3, 1 / 3)]
    calibration = Calibration(ranks=tuple(RankMap(first_rank=rank, map=each) for rank, each in enumerate(maps, 1)))
    scores, truth = [[0.9, 0.5, 0.1], [0.9, 0.5, 0.1]], [{0: 1.0}, {2: 1.0}]
    found = evaluate(scores, truth, [1, 2, 5], calibration)
    assert found["ECE@1"] == pytest.approx(25)
    assert found["ECE@2"] == pytest.approx(25)
    # Ranks 2 and 3 together: four answers of 0.25, one of them right.
    assert found["ECE@5"] == pytest.approx(100 * (2 * 0.25 + 0) / 6)
    assert not [name for name in evaluate(scores, truth, [1, 2, 5]) if name.startswith("ECE")]


def test_propensity_constants_come_from_the_card() -> None:
    scores, truth = [[0.1, 0.9, 0.5], [0.9, 0.1, 0.5]], [{1: 1.0}, {2: 1.0}]
    rows = Rows(matrix([{0: 1.0}, {1: 1.0}], 2), matrix(truth, 3))
    found = {
        pair: evaluation.evaluate(
            Scores(scores),
            rows,
            np.array([13, 6, 1]),
            100,
            Card("c", "features", 3, 2, False, *pair),
            [1],  # type: ignore[arg-type]
        )["PSP@1"]
        for pair in ((0.55, 1.5), (0.5, 3.0), (0.6, 2.6))
    }
    assert len(set(found.values())) == 3


def test_every_rank_asked_for_is_measured_however_few_labels_there_are() -> None:
    """Ranks beyond the labels are misses, as P@k divides by k: data with three labels has a P@5."""
    found = evaluate([[0.1, 0.9, 0.5]], [{1: 1.0}], [1, 5])
    assert found["P@5"] == 20
    assert found["nDCG@5"] == 100


def trained(folder: Path, out: Path, recipe: str = "mach") -> Artifact:
    dataset, run = load(folder, tiny(recipe, epochs=1))
    fit(run, dataset, out, resume=False, log=lambda line: None)
    return read_artifact(out)


@pytest.fixture(scope="module")
def artifact(texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return trained(texts, tmp_path_factory.mktemp("artifacts") / "mach")


def test_an_artifact_is_measured_on_a_split(artifact: Artifact, texts: Path) -> None:
    found = evaluation.evaluate_artifact(artifact, open_source(texts), "tst", [1, 3])
    assert {"P@1", "P@3", "nDCG@3", "PSP@1", "R@3", "RP@3", "coverage@1", "R@100", "constant_P@1"} <= set(found)
    assert found["R@100"] == 100  # eight labels: all are found within a hundred
    assert not {"P@100", "P@8", "nDCG@100", "ECE@100"} & set(found)
    # The same by hand: counts, propensities and rows as the artifact and the folder have them.
    points = list(open_source(texts).points("tst"))
    top = int(np.argsort(-artifact.label_counts, kind="stable")[0])
    assert found["constant_P@1"] == 100 * np.mean([top in point.labels for point in points])


def test_an_artifacts_calibration_is_measured(artifact: Artifact, texts: Path) -> None:
    """By hand from the rows themselves; an artifact without a calibration is measured all the same."""
    source = open_source(texts)
    found = evaluation.evaluate_artifact(artifact, source, "tst", [1, 3])
    assert artifact.calibration is not None
    test = read_rows(source, "tst", artifact.tokenizer, artifact.config.run.texts)
    ranked, scores = evaluation.ranking(artifact.restore(), test.inputs, LABELS, 3)
    probabilities, hits = artifact.calibration.probabilities(scores), metrics.hits(ranked, test.targets)
    for k in (1, 3):
        expected = 100 * metrics.calibration_error(probabilities[:, :k].ravel(), hits[:, :k].ravel())
        assert found[f"ECE@{k}"] == pytest.approx(expected)
    without = evaluation.evaluate_artifact(replace(artifact, calibration=None), source, "tst", [1, 3])
    assert without == {name: value for name, value in found.items() if not name.startswith("ECE")}


def test_propensities_count_points_and_labels_of_the_same_rows(artifact: Artifact, texts: Path) -> None:
    """Held-out rows are training rows: N and N_l both include them."""
    source = open_source(texts)
    labels = [point.labels for point in source.points("trn")]
    counts = np.bincount(np.concatenate(labels), minlength=LABELS)
    np.testing.assert_array_equal(artifact.label_counts, counts)
    test = read_rows(source, "tst", artifact.tokenizer, artifact.config.run.texts)
    gains = metrics.inverse_propensities(counts, len(labels), 0.55, 1.5)
    ranked, _ = evaluation.ranking(artifact.restore(), test.inputs, LABELS, 1)
    expected = metrics.report(ranked, test.targets, gains, [1])["PSP@1"]
    assert evaluation.evaluate_artifact(artifact, source, "tst", [1])["PSP@1"] == pytest.approx(expected, rel=1e-9)


def test_the_filter_file_of_a_split_is_applied(artifact: Artifact, tmp_path: Path) -> None:
    folder = write_texts(tmp_path / "filtered")
    source = open_source(folder)
    before = evaluation.evaluate_artifact(artifact, source, "tst", [1])
    assert before["P@1"] > 0
    rows = (json.loads(line) for line in (folder / "tst.json").read_text().splitlines())
    pairs = [f"{row} {label}\n" for row, record in enumerate(rows) for label in record["target_ind"]]
    (folder / "filter_labels_test.txt").write_text("".join(pairs))
    after = evaluation.evaluate_artifact(artifact, open_source(folder), "tst", [1])
    # Every true label is filtered: nothing right can be predicted any more, not even by asking for all labels.
    assert (after["P@1"], after["R@100"]) == (0, 0)


@pytest.mark.parametrize("change", ["order", "count"])
def test_other_labels_are_refused(artifact: Artifact, tmp_path: Path, change: str) -> None:
    folder = write_texts(tmp_path / "other")
    lines = (folder / "lbl.json").read_text().splitlines(keepends=True)
    changed = lines[::-1] if change == "order" else [*lines, '{"uid": "new", "title": "new"}\n']
    (folder / "lbl.json").write_text("".join(changed))
    expected = "other ids or another order" if change == "order" else "found 9 labels"
    with pytest.raises(UnsuitableData, match=rf"expected the 8 labels of .*mach.*{expected}"):
        evaluation.evaluate_artifact(artifact, open_source(folder), "tst", [1])


def test_other_inputs_are_refused(artifact: Artifact, tmp_path: Path) -> None:
    """Label ids may be equal by chance: row numbers, most of all."""
    features = write_features(tmp_path / "features")
    (features / "labels.txt").write_text("".join(f"l{row}\n" for row in range(LABELS)))
    with pytest.raises(UnsuitableData, match="expected texts, found features"):
        evaluation.evaluate_artifact(artifact, open_source(features), "tst", [1])
    other = trained(features, tmp_path / "trained")
    with pytest.raises(UnsuitableData, match="expected 12 features, found"):
        evaluation.evaluate_artifact(other, open_source(write_texts(tmp_path / "texts")), "tst", [1])


def test_another_number_of_features_is_refused(features: Path, tmp_path: Path) -> None:
    artifact = trained(features, tmp_path / "trained", "declare")
    wider = write_features(tmp_path / "wider")
    for file in wider.glob("*.txt"):
        header, rest = file.read_text().split("\n", 1)
        count, width, labels = header.split()
        file.write_text(f"{count} {int(width) + 1} {labels}\n{rest}")
    with pytest.raises(UnsuitableData, match="expected 12 features, found 13"):
        evaluation.evaluate_artifact(artifact, open_source(wider), "tst", [1])
