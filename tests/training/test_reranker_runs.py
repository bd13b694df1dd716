"""Whole runs with a re-ranker: what is fitted reaches the artifact, and all that is measured of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_array

from tests.training.synthetic import in_two_lines, load, tiny
from training.artifact import ArtifactError, read_artifact
from training.data.dataset import read_rows
from training.data.records import open_source
from training.evaluation import calibrated, evaluate, evaluate_artifact, rank_artifact, ranking, reranker_of
from training.loop import fit, validation_measures
from training.parts import join, part_count, part_of
from training.recipes import RECIPES, RunConfig
from training.reranker import RerankerConfig


def test_a_run_s_answers_are_reranked_wherever_they_are_measured(texts: Path, tmp_path: Path) -> None:
    dataset, run = load(texts, tiny("mach-reranked"))
    fit(run, dataset, tmp_path / "out", resume=False, log=print)
    artifact = read_artifact(tmp_path / "out")
    assert artifact.reranker is not None
    inputs, words = dataset.validation.inputs, dataset.validation.words
    assert words is not None
    own = ranking(artifact.restore(), inputs, 8, 8)
    labels, scores = ranking(artifact.restore(), inputs, 8, 5, reranker=artifact.reranker, words=words)
    whole = artifact.reranker.rerank(words, *own)  # all labels are candidates
    np.testing.assert_array_equal(labels, whole[0][:, :5])
    np.testing.assert_array_equal(scores, whole[1][:, :5])
    measured = evaluate_artifact(artifact, open_source(texts), "tst", [1])
    assert measured["P@1"] > measured["constant_P@1"]


def test_what_is_said_of_a_run_is_of_its_reranked_answers(texts: Path, tmp_path: Path) -> None:
    dataset, run = load(texts, tiny("mach-reranked"))
    kept = fit(run, dataset, tmp_path / "out", resume=False, log=print)
    model = read_artifact(tmp_path / "out").restore()
    assert run.reranker is not None
    made = reranker_of(model, dataset, run.reranker, run.texts.piece_count, run.training.seed).chosen
    own, reranked = (validation_measures(model, dataset, one)["P@1"] for one in (None, made))
    assert kept["P@1"] == reranked != own
    assert kept["epoch"] in (1, 2)
    assert json.loads((tmp_path / "out" / "metrics.json").read_text()) == kept


def test_tokens_in_reading_order_are_read_wherever_answers_are_measured(texts: Path, tmp_path: Path) -> None:
    """Bags have no pairs: with them instead, answers score otherwise."""
    folder = in_two_lines(texts, tmp_path / "data")
    dataset, run = load(folder, tiny("mach-reranked"))
    fit(run, dataset, tmp_path / "out", resume=False, log=print)
    artifact, source = read_artifact(tmp_path / "out"), open_source(folder)
    model, made = artifact.restore(), artifact.reranker
    assert made is not None
    in_order = read_rows(source, "tst", artifact.tokenizer, run.texts, in_order=True)
    bags = replace(in_order, words=None)
    expected, otherwise = (
        ranking(model, rows.inputs, 8, 5, reranker=made, words=rows.words)[1] for rows in (in_order, bags)
    )
    assert not np.allclose(expected, otherwise, equal_nan=True)
    np.testing.assert_array_equal(rank_artifact(artifact, source, "tst", 5)[1], expected)
    counts, card, calibration = dataset.label_counts, dataset.card, artifact.calibration
    measured, of_bags = (
        evaluate(model, rows, counts, 60, card, [5], calibration=calibration, reranker=made)["ECE@5"]
        for rows in (in_order, bags)
    )
    assert measured != of_bags
    assert measured == evaluate_artifact(artifact, source, "tst", [5])["ECE@5"]


def test_calibration_is_of_answers_that_were_not_trained_on(texts: Path, tmp_path: Path) -> None:
    dataset, run = load(in_two_lines(texts, tmp_path / "data"), tiny("mach-reranked"))
    fit(run, dataset, tmp_path / "out", resume=False, log=print)
    artifact = read_artifact(tmp_path / "out")
    assert run.reranker is not None
    model, seed, held = artifact.restore(), run.training.seed, dataset.validation
    made = reranker_of(model, dataset, run.reranker, run.texts.piece_count, seed)
    assert artifact.calibration == calibrated(model, held, seed, made.chosen)
    for other in (
        calibrated(model, held, seed, made.final),
        calibrated(model, replace(held, words=None), seed, made.chosen),
    ):
        assert artifact.calibration != other


def test_the_artifact_holds_what_was_fitted(texts: Path, tmp_path: Path) -> None:
    dataset, run = load(texts, with_few_sub_words(tiny("mach-reranked")))
    fit(run, dataset, tmp_path / "out", resume=False, log=print)
    artifact = read_artifact(tmp_path / "out")
    assert artifact.reranker is not None
    assert run.reranker is not None
    expected = reranker_of(artifact.restore(), dataset, run.reranker, run.texts.piece_count, run.training.seed).final
    assert artifact.reranker.mixture == expected.mixture
    np.testing.assert_array_equal(artifact.reranker.weights.toarray(), expected.weights.toarray())
    kept, made = artifact.reranker.weighing, expected.weighing
    np.testing.assert_array_equal(kept.idf, made.idf)
    for name in ("piece_offsets", "pieces", "pairs"):
        one, other = getattr(kept.terms, name), getattr(made.terms, name)
        assert one.size > 0
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


def with_few_sub_words(run: RunConfig) -> RunConfig:
    """The run with words that are not all sub-words too."""
    assert run.vocabulary is not None
    return run.model_copy(update={"vocabulary": run.vocabulary.model_copy(update={"subwords": 45})})


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
    join(folders, dataset, tmp_path / "whole", log=print)
    assert read_artifact(tmp_path / "whole").reranker is not None


@pytest.mark.parametrize("recipe", [name for name in RECIPES if name.endswith("-reranked")])
def test_recipes_differ_from_their_method_s_by_the_reranker(recipe: str) -> None:
    """And MACH's by narrower layers."""
    run, alone = RECIPES[recipe](), RECIPES[recipe.removesuffix("-reranked")]()
    assert run.reranker == RerankerConfig()
    if recipe == "mach-reranked":
        assert (run.encoder.widths, alone.encoder.widths) == ((256,), None)
        alone = alone.model_copy(update={"encoder": alone.encoder.model_copy(update={"widths": (256,)})})
    assert run.model_copy(update={"reranker": None}) == alone


def test_removed_pairs_are_not_answered_even_if_nominated(texts: Path, tmp_path: Path) -> None:
    dataset, run = load(texts, tiny("mach-reranked"))
    fit(run, dataset, tmp_path / "out", resume=False, log=print)
    artifact = read_artifact(tmp_path / "out")
    assert artifact.reranker is not None
    few = replace(artifact.reranker, mixture=artifact.reranker.mixture.model_copy(update={"candidates": 2}))
    inputs, words = dataset.validation.inputs, dataset.validation.words
    before, _ = ranking(artifact.restore(), inputs, 8, 2, reranker=few, words=words)
    rows_N = np.arange(inputs.shape[0])
    removed = csr_array((np.ones(len(rows_N), dtype=bool), (rows_N, before[:, 0])), shape=(len(rows_N), 8))
    labels, scores = ranking(artifact.restore(), inputs, 8, 8, removed, few, words)
    assert not (labels == before[:, :1]).any()
    np.testing.assert_array_equal(labels == -1, np.isnan(scores))
    assert (np.diff((labels == -1).astype(int), axis=1) >= 0).all()
