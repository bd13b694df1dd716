"""Word classifiers order anew what a model found: by hand, and on data whose labels hang on single words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.sparse import csr_array

from tests.training.synthetic import load, tiny
from training.artifact import ArtifactError, new_model, read_artifact
from training.calibration import PlattMap
from training.data.records import open_source
from training.evaluation import evaluate_artifact, ranking, reranker_of
from training.loop import fit
from training.methods.base import Shape
from training.parts import join, part_count, part_of
from training.recipes import RECIPES
from training.reranker import Candidates, Mixture, Reranker, RerankerConfig, fit_mixture, fit_reranker

LEVEL = PlattMap(slope=1, intercept=0)


def reranker(share: float, candidates: int = 3, nominees: int = 0, idf: NDArray[np.float32] | None = None) -> Reranker:
    """Over 3 words and 4 labels: word 0 speaks for label 2, word 1 against label 0."""
    weights = np.zeros((3, 4), dtype=np.float32)
    weights[0, 2], weights[1, 0] = 3, -2
    mixture = Mixture(own=LEVEL, words=LEVEL, share=share, candidates=candidates, nominees=nominees)
    return Reranker(csr_array(weights), idf, mixture)


def sigmoid(score: float) -> float:
    return float(1 / (1 + np.exp(-score)))


def rows(*values: list[float]) -> csr_array:
    return csr_array(np.array(values, dtype=np.float32))


LABELS = np.array([[0, 1, 2, 3]])
SCORES = np.array([[2.0, 1.0, 0.5, 0.0]], dtype=np.float32)


def test_by_hand() -> None:
    """The row (3, 4, 0) has unit length as (0.6, 0.8, 0): margins -2.6, -1 and 0.8."""
    labels, scores = reranker(0.5).rerank(rows([3, 4, 0]), LABELS, SCORES)
    expected = {0: (2.0, -2.6), 1: (1.0, -1.0), 2: (0.5, 0.8)}
    mixed = {label: (sigmoid(own) + sigmoid(margin)) / 2 for label, (own, margin) in expected.items()}
    assert labels.tolist() == [[2, 1, 0, 3]]
    assert scores[0, :3].tolist() == pytest.approx([mixed[2], mixed[1], mixed[0]], rel=1e-6)
    # Label 3 is no candidate: its own half alone.
    assert scores[0, 3] == pytest.approx(0.5 * sigmoid(0.0), rel=1e-6)


def test_a_nominee_by_hand() -> None:
    """Label 2 is not among the two candidates, and word 0 speaks for it: it has the score of the last of them."""
    labels, scores = reranker(0.5, candidates=2, nominees=1).rerank(rows([3, 4, 0]), LABELS, SCORES)
    mixed = {0: (2.0, -2.6), 1: (1.0, -1.0), 2: (1.0, 0.8)}
    expected = {label: (sigmoid(own) + sigmoid(margin)) / 2 for label, (own, margin) in mixed.items()}
    assert labels.tolist() == [[2, 1, 0, 3]]
    assert scores[0, :3].tolist() == pytest.approx([expected[2], expected[1], expected[0]], rel=1e-6)
    assert scores[0, 3] == pytest.approx(0.5 * sigmoid(0.0), rel=1e-6)


def test_only_what_a_word_speaks_for_is_nominated() -> None:
    labels, _ = reranker(0.5, candidates=1, nominees=3).rerank(rows([0, 1, 0]), LABELS, SCORES)
    assert labels.tolist() == [[0, 1, 2, 3]]


def test_a_label_beyond_the_candidates_never_scores_above_them() -> None:
    scores = np.array([[-5.0, -5.0, -5.0, -5.0]], dtype=np.float32)
    labels, mixed = reranker(0.0, candidates=2).rerank(rows([1, 0, 0]), LABELS, scores)
    assert labels.tolist() == [[0, 1, 2, 3]]
    assert (np.diff(mixed) <= 0).all()


def test_without_a_share_the_order_stays() -> None:
    labels, _ = reranker(0.0).rerank(rows([3, 4, 0]), LABELS, SCORES)
    np.testing.assert_array_equal(labels, LABELS)


def test_equal_scores_are_ordered_by_label_row() -> None:
    labels, _ = reranker(0.5).rerank(rows([0, 0, 1]), LABELS[:, ::-1], np.zeros((1, 4), dtype=np.float32))
    assert labels.tolist() == [[1, 2, 3, 0]]


def test_texts_are_weighted_by_tf_idf() -> None:
    """Counts 1 and e: (1 + ln count) * idf is (2, 2), at unit length 0.707 each."""
    idf = np.array([2, 1, 1], dtype=np.float32)
    _, scores = reranker(1.0, idf=idf).rerank(rows([1, np.e, 0]), LABELS, SCORES)
    assert scores[0, 0] == pytest.approx(sigmoid(3 * np.sqrt(0.5) - 1), rel=1e-6)


def test_a_sequence_is_weighted_as_the_bag_of_its_tokens() -> None:
    sequence = csr_array((np.ones(3, dtype=np.float32), np.array([1, 0, 1]), np.array([0, 3])), shape=(1, 3))
    idf = np.ones(3, dtype=np.float32)
    found, expected = (
        reranker(1.0, idf=idf).rerank(inputs, LABELS, SCORES)[1] for inputs in (sequence, rows([1, 2, 0]))
    )
    np.testing.assert_array_equal(found, expected)
    assert sequence.nnz == 3  # and is left as it was


def test_padding_stays_behind() -> None:
    labels = np.array([[2, 0, -1, -1]])
    scores = np.array([[1.0, 0.5, np.nan, np.nan]], dtype=np.float32)
    found, mixed = reranker(0.5).rerank(rows([0, 0, 0]), labels, scores)
    assert found.tolist() == [[2, 0, -1, -1]]
    assert np.isnan(mixed).tolist() == [[False, False, True, True]]


def test_the_share_is_the_one_with_the_best_order() -> None:
    """One opinion says nothing; the other tells the true label."""
    rng = np.random.default_rng(0)
    true_N = rng.integers(0, 20, size=200)
    labels_NC = np.argsort(rng.random((200, 20)), axis=1)
    targets = csr_array((np.ones(200), (np.arange(200), true_N)), shape=(200, 20))
    noise = rng.normal(size=labels_NC.shape).astype(np.float32)
    told = ((labels_NC == true_N[:, None]) * 2.0 + 0.1 * noise).astype(np.float32)
    assert fit_mixture(Candidates(labels_NC, noise, told), targets, 20, 0).share > 0
    assert fit_mixture(Candidates(labels_NC, told, noise), targets, 20, 0).share == 0


def test_classifiers_learn_from_the_rows_that_the_model_confuses(texts: Path) -> None:
    """A model that knows nothing but finds all labels: words alone then answer well."""
    dataset, _ = load(texts, tiny("mach"))

    def rank_blindly(inputs: csr_array, k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        labels_NK = np.tile(np.arange(k), (inputs.shape[0], 1))
        return labels_NK, np.zeros(labels_NK.shape, dtype=np.float32)

    made = fit_reranker(rank_blindly, dataset, RerankerConfig(), 0)
    held = dataset.validation
    labels, _ = made.rerank(held.inputs, *rank_blindly(held.inputs, 8))
    first_N = held.targets.toarray()[np.arange(len(held)), labels[:, 0]] > 0
    assert made.mixture.candidates == 8
    assert first_N.mean() > 0.8
    again = fit_reranker(rank_blindly, dataset, RerankerConfig(), 0)
    np.testing.assert_array_equal(again.weights.toarray(), made.weights.toarray())


def test_every_option_changes_what_is_made(texts: Path) -> None:
    dataset, run = load(texts, tiny("mach"))
    model = new_model(run, Shape.of(dataset))
    model.attach(type(model).make_tables(run.method, dataset, 0))
    model.initialise(dataset)
    plain = reranker_of(model, dataset, RerankerConfig(), 0)
    assert reranker_of(model, dataset, RerankerConfig(candidates=3), 0).mixture.candidates == 3
    eager = reranker_of(model, dataset, RerankerConfig(cost=50), 0)
    assert np.abs(eager.weights.toarray()).sum() > 1.5 * np.abs(plain.weights.toarray()).sum()
    assert reranker_of(model, dataset, RerankerConfig(least_weight=0.5), 0).weights.nnz < plain.weights.nnz


def test_nominees_are_taken_where_they_help(texts: Path) -> None:
    """A model that only ever finds labels 0 and 1 needs them; one that finds the true labels does not."""
    dataset, _ = load(texts, tiny("mach"))
    config = RerankerConfig(candidates=2, nominees=3)

    def rank_poorly(inputs: csr_array, k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        labels_NK = np.tile(np.arange(k), (inputs.shape[0], 1))
        return labels_NK, np.zeros(labels_NK.shape, dtype=np.float32)

    def rank_perfectly(inputs: csr_array, k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        rows = dataset.train if inputs.shape[0] != len(dataset.validation) else dataset.validation
        targets_NL = rows.targets.toarray()
        labels_NK = np.argsort(-targets_NL, axis=1, kind="stable")[:, :k]
        return labels_NK, np.take_along_axis(targets_NL, labels_NK, axis=1).astype(np.float32)

    assert fit_reranker(rank_poorly, dataset, config, 0).mixture.nominees == 3
    assert fit_reranker(rank_poorly, dataset, config.model_copy(update={"nominees": 0}), 0).mixture.nominees == 0
    assert fit_reranker(rank_perfectly, dataset, config, 0).mixture.nominees == 0


def test_a_run_s_answers_are_reranked_wherever_they_are_measured(texts: Path, tmp_path: Path) -> None:
    dataset, run = load(texts, tiny("mach-reranked"))
    fit(run, dataset, tmp_path / "out", resume=False, log=print)
    artifact = read_artifact(tmp_path / "out")
    assert artifact.reranker is not None
    inputs = dataset.validation.inputs
    own = ranking(artifact.restore(), inputs, 8, 8)
    labels, scores = ranking(artifact.restore(), inputs, 8, 5, reranker=artifact.reranker)
    whole = artifact.reranker.rerank(inputs, *own)  # all labels are candidates
    np.testing.assert_array_equal(labels, whole[0][:, :5])
    np.testing.assert_array_equal(scores, whole[1][:, :5])
    measured = evaluate_artifact(artifact, open_source(texts), "tst", [1])
    assert measured["P@1"] > measured["constant_P@1"]


def test_a_damaged_mixture_is_a_sentence(texts: Path, tmp_path: Path) -> None:
    dataset, run = load(texts, tiny("mach-reranked"))
    fit(run, dataset, tmp_path / "out", resume=False, log=print)
    (tmp_path / "out" / "reranker" / "mixture.json").write_text("{}")
    with pytest.raises(ArtifactError, match=r"mixture.json: own: Field required"):
        read_artifact(tmp_path / "out")


def test_a_part_has_no_reranker_and_the_whole_has_one(texts: Path, tmp_path: Path) -> None:
    independent = tiny("mach-independent").model_copy(update={"reranker": RerankerConfig()})
    dataset, run = load(texts, independent)
    folders = [tmp_path / str(repetition) for repetition in range(part_count(run))]
    for repetition, folder in enumerate(folders):
        fit(part_of(run, repetition), dataset, folder, resume=False, log=print)
    assert read_artifact(folders[0]).reranker is None
    join(folders, dataset, tmp_path / "whole")
    assert read_artifact(tmp_path / "whole").reranker is not None


@pytest.mark.parametrize("recipe", [name for name in RECIPES if name.endswith("-reranked")])
def test_recipes_differ_from_their_method_s_by_the_reranker_alone(recipe: str) -> None:
    run = RECIPES[recipe]()
    assert run.reranker == RerankerConfig()
    assert run.model_copy(update={"reranker": None}) == RECIPES[recipe.removesuffix("-reranked")]()


def test_removed_pairs_are_not_answered_even_if_nominated(texts: Path, tmp_path: Path) -> None:
    dataset, run = load(texts, tiny("mach-reranked"))
    fit(run, dataset, tmp_path / "out", resume=False, log=print)
    artifact = read_artifact(tmp_path / "out")
    assert artifact.reranker is not None
    few = replace(artifact.reranker, mixture=artifact.reranker.mixture.model_copy(update={"candidates": 2}))
    inputs = dataset.validation.inputs
    before, _ = ranking(artifact.restore(), inputs, 8, 2, reranker=few)
    rows_N = np.arange(inputs.shape[0])
    removed = csr_array((np.ones(len(rows_N), dtype=bool), (rows_N, before[:, 0])), shape=(len(rows_N), 8))
    labels, scores = ranking(artifact.restore(), inputs, 8, 8, removed, few)
    assert not (labels == before[:, :1]).any()
    np.testing.assert_array_equal(labels == -1, np.isnan(scores))
    assert (np.diff((labels == -1).astype(int), axis=1) >= 0).all()
