"""Word classifiers order anew what a model found: by hand, and on data whose labels hang on single words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.sparse import csr_array, vstack

from tests.training.synthetic import load, tiny, write_texts
from training.artifact import new_model
from training.calibration import PlattMap
from training.data.batches import Rows
from training.data.dataset import Dataset
from training.evaluation import reranker_of
from training.methods.base import Shape
from training.reranker import Candidates, Mixture, Reranker, RerankerConfig
from training.rounds import Fitted, Rank, fit_mixture, fit_reranker
from training.svm import fit_classifiers
from training.terms import Terms
from training.tokens import read_words
from training.vocabulary import inverse_document_frequency
from training.weighing import Weighing, unit_rows

LEVEL = PlattMap(slope=1, intercept=0)
AS_THEY_ARE = Weighing(None, None)


def reranker(share: float, candidates: int = 3, nominees: int = 0, weighing: Weighing = AS_THEY_ARE) -> Reranker:
    """Over 3 words and 4 labels: word 0 speaks for label 2, word 1 against label 0."""
    weights = np.zeros((3 if weighing.terms is None else weighing.terms.width, 4), dtype=np.float32)
    weights[0, 2], weights[1, 0] = 3, -2
    mixture = Mixture(own=LEVEL, words=LEVEL, share=share, candidates=candidates, nominees=nominees)
    return Reranker(csr_array(weights), weighing, mixture)


def of_texts(*idf: float, pieces: Sequence[int] = (), pairs: Sequence[int] = ()) -> Weighing:
    """Of 3 tokens; the last one has the pieces."""
    terms = Terms(np.array([0, 0, 0, len(pieces)]), np.array(pieces, np.int32), np.array(pairs, np.int64))
    return Weighing(terms, np.array(idf, dtype=np.float32))


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


def test_a_label_without_classifier_by_hand() -> None:
    """Labels 4 and 5 are behind the classifiers': the one among the candidates has its own probability whole."""
    labels, scores = reranker(0.5).rerank(
        rows([3, 4, 0]), np.array([[4, 0, 2, 5]]), np.array([[2.0, 1.5, 0.5, 0.4]], dtype=np.float32)
    )
    expected = {4: sigmoid(2.0), 2: (sigmoid(0.5) + sigmoid(0.8)) / 2, 0: (sigmoid(1.5) + sigmoid(-2.6)) / 2}
    assert labels.tolist() == [[4, 2, 0, 5]]
    assert scores[0, :3].tolist() == pytest.approx(list(expected.values()), rel=1e-6)
    assert scores[0, 3] == pytest.approx(0.5 * sigmoid(0.4), rel=1e-6)


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
    _, scores = reranker(1.0, weighing=of_texts(2, 1, 1)).rerank(rows([1, np.e, 0]), LABELS, SCORES)
    assert scores[0, 0] == pytest.approx(sigmoid(3 * np.sqrt(0.5) - 1), rel=1e-6)


def test_features_may_have_an_idf() -> None:
    """Values 3 and 4 times 2 and 1: at unit length 0.832 and 0.555."""
    weighing = Weighing(None, np.array([2, 1, 1], dtype=np.float32))
    units = unit_rows(rows([3, 4, 0]), weighing).toarray()
    np.testing.assert_allclose(units, np.array([[6, 4, 0]]) / np.sqrt(52), rtol=1e-6)
    _, scores = reranker(1.0, weighing=weighing).rerank(rows([3, 4, 0]), LABELS, SCORES)
    assert scores[0, 0] == pytest.approx(sigmoid(18 / np.sqrt(52) - 1), rel=1e-6)


def test_a_sequence_is_weighted_as_the_bag_of_its_tokens() -> None:
    sequence = csr_array((np.ones(3, dtype=np.float32), np.array([1, 0, 1]), np.array([0, 3])), shape=(1, 3))
    found, expected = (
        reranker(1.0, weighing=of_texts(1, 1, 1)).rerank(inputs, LABELS, SCORES)[1]
        for inputs in (sequence, rows([1, 2, 0]))
    )
    np.testing.assert_array_equal(found, expected)
    assert sequence.nnz == 3  # and is left as it was


def test_pieces_and_pairs_speak_too() -> None:
    """Tokens 2 and 1 in this order: piece 0 of token 2 counts as token 0 does, and the pair is a term of its own."""
    weighing = of_texts(1, 1, 1, 2, pieces=[0], pairs=[2 * 3 + 1])
    words = csr_array((np.ones(2, dtype=np.float32), np.array([2, 1]), np.array([0, 2])), shape=(1, 3))
    np.testing.assert_allclose(unit_rows(words, weighing).toarray(), np.array([[1, 1, 1, 2]]) / np.sqrt(7), rtol=1e-6)
    _, scores = reranker(1.0, weighing=weighing).rerank(words, LABELS, SCORES)
    assert scores[0, 0] == pytest.approx(sigmoid(3 / np.sqrt(7) - 1), rel=1e-6)
    backwards = csr_array((words.data, words.indices[::-1].copy(), words.indptr), shape=(1, 3))
    np.testing.assert_allclose(
        unit_rows(backwards, weighing).toarray(), np.array([[1, 1, 1, 0]]) / np.sqrt(3), rtol=1e-6
    )


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


def rank_blindly(inputs: csr_array, k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """A model that knows nothing: the first k labels, whatever it is asked."""
    labels_NK = np.tile(np.arange(k), (inputs.shape[0], 1))
    return labels_NK, np.zeros(labels_NK.shape, dtype=np.float32)


def fitted(dataset: Dataset, config: RerankerConfig, rank: Rank = rank_blindly, piece_count: int = 60) -> Fitted:
    return fit_reranker(rank, dataset, config, piece_count, 0, print)


def test_classifiers_learn_from_the_rows_that_the_model_confuses(texts: Path) -> None:
    """A model that knows nothing but finds all labels: words alone then answer well."""
    dataset, _ = load(texts, tiny("mach-reranked"))
    made = fitted(dataset, RerankerConfig()).chosen
    held = dataset.validation
    labels, _ = made.rerank(held.reading, *rank_blindly(held.inputs, 8))
    first_N = held.targets.toarray()[np.arange(len(held)), labels[:, 0]] > 0
    assert made.mixture.candidates == 8
    assert first_N.mean() > 0.8
    again = fitted(dataset, RerankerConfig()).chosen
    np.testing.assert_array_equal(again.weights.toarray(), made.weights.toarray())


def test_every_option_changes_what_is_made(texts: Path) -> None:
    dataset, run = load(texts, tiny("mach-reranked"))
    model = new_model(run, Shape.of(dataset))
    model.attach(type(model).make_tables(run.method, dataset, 0))
    model.initialise(dataset)

    def made(**options: object) -> Reranker:
        config = RerankerConfig(**options)  # type: ignore[arg-type]
        return reranker_of(model, dataset, config, run.texts.piece_count, 0).chosen

    plain = made()
    assert plain.weighing.terms is not None
    assert made(candidates=3).mixture.candidates == 3
    assert np.abs(made(cost=50).weights.toarray()).sum() > 1.5 * np.abs(plain.weights.toarray()).sum()
    assert made(least_weight=0.5).weights.nnz < plain.weights.nnz
    fewer = made(pairs=7).weighing.terms
    assert fewer is not None
    assert len(plain.weighing.terms.pairs) > 7 == len(fewer.pairs)
    without, doubled = made(label_texts=0), made(label_texts=2)
    differences = [np.abs(plain.weights - other.weights).max() for other in (without, doubled)]
    assert min(differences) > 0.05
    np.testing.assert_array_equal(made(label_texts=1).weights.toarray(), plain.weights.toarray())


def test_option_rounds(texts: Path) -> None:
    """A model that only ever finds labels 0 and 1 teaches the others' classifiers nothing: later rounds do."""
    dataset, _ = load(texts, tiny("mach-reranked"))
    config = RerankerConfig(candidates=2, nominees=3, label_texts=0)
    lines: dict[int, list[str]] = {rounds: [] for rounds in (1, 2, 3)}
    made = {
        rounds: fit_reranker(
            rank_blindly, dataset, config.model_copy(update={"rounds": rounds}), 60, 0, lines[rounds].append
        )
        for rounds in lines
    }
    assert [len(said) for said in lines.values()] == [1, 2, 3]
    assert lines[3][:2] == [line.replace("/2", "/3") for line in lines[2]]
    negative = [float(np.minimum(one.chosen.weights[:, [5]].toarray(), 0).sum()) for one in made.values()]
    assert negative[0] == 0
    assert negative[1] < 0


def test_without_nominees_there_is_one_round(texts: Path) -> None:
    lines: list[str] = []
    config = RerankerConfig(nominees=0, rounds=3)
    fit_reranker(rank_blindly, load(texts, tiny("mach-reranked"))[0], config, 60, 0, lines.append)
    assert len(lines) == 1


@pytest.mark.parametrize("nominees", [0, 3])
def test_classifiers_learn_from_drawn_rows_last(texts: Path, nominees: int) -> None:
    """Those of the held-out rows' first labels and nominees are told apart there too."""
    dataset, _ = load(texts, tiny("mach-reranked"))
    config = RerankerConfig(candidates=2, nominees=nominees, rounds=1, label_texts=0, cost=0.7, least_weight=0.01)
    made = fitted(dataset, config)
    assert made.final.mixture == made.chosen.mixture
    assert made.final.weighing is made.chosen.weighing
    rows, held = dataset.train, dataset.validation
    rows_NW, held_NW = (unit_rows(part.reading, made.final.weighing) for part in (rows, held))
    confused_NL = np.zeros((len(rows) + len(held), 8), dtype=np.bool_)
    confused_NL[:, :2] = True
    margins_NL = (held_NW @ made.chosen.weights).toarray()
    for confused_L, margins_L in zip(confused_NL[len(rows) :], margins_NL, strict=True):
        first = np.argsort(-margins_L, kind="stable")[:nominees]
        confused_L[first[margins_L[first] > 0]] = True
    inputs_NW, targets_NL = vstack([rows_NW, held_NW], format="csr"), vstack([rows.targets, held.targets], format="csr")
    expected = fit_classifiers(
        csr_array(inputs_NW), csr_array(targets_NL), csr_array(confused_NL), cost=0.7, least_weight=0.01, seed=0
    )
    np.testing.assert_array_equal(made.final.weights.toarray(), expected.toarray())
    assert (made.final.weights != made.chosen.weights).nnz > 0


def test_a_split_of_its_own_is_not_learned_from(tmp_path: Path) -> None:
    dataset, _ = load(write_texts(tmp_path / "data", dev=15), tiny("mach-reranked"))
    made = fitted(dataset, RerankerConfig())
    assert made.final is made.chosen


def test_features_have_no_terms(features: Path) -> None:
    dataset, run = load(features, tiny("mach-reranked"))
    made = fitted(dataset, RerankerConfig(), piece_count=run.texts.piece_count).final
    assert made.weighing == AS_THEY_ARE
    assert made.weights.shape == (dataset.input_width, dataset.label_count)


def test_features_that_are_only_ever_present_are_weighted_by_idf(features: Path) -> None:
    dataset, _ = load(features, tiny("mach-reranked"))
    present = dataset.train.inputs.copy()
    present.data[:] = 1
    made = fitted(replace(dataset, train=replace(dataset.train, inputs=present)), RerankerConfig()).final
    assert made.weighing.terms is None
    np.testing.assert_array_equal(made.weighing.idf, inverse_document_frequency(present))


def test_a_label_without_rows_is_nominated_thanks_to_its_text(tmp_path: Path) -> None:
    folder = write_texts(tmp_path / "data")
    with (folder / "lbl.json").open("a") as file:
        file.write('{"uid": "rare", "title": "quokka"}\n')
    dataset, run = load(folder, tiny("mach-reranked"))
    assert dataset.tokenizer is not None
    assert dataset.label_counts[8] == 0
    config = RerankerConfig(candidates=2, nominees=3)
    question = read_words(dataset.tokenizer, ["the quokka"], run.texts, 12)
    found = []
    for label_texts in (None, 1.0, 0.0):
        made = fitted(dataset, config.model_copy(update={"label_texts": label_texts})).final
        assert made.mixture.nominees == 3
        nominating = replace(made, mixture=made.mixture.model_copy(update={"share": 1.0}))
        labels, _ = nominating.rerank(question, *rank_blindly(question, 2))
        found.append(8 in labels[0])
    assert found == [True, True, False]


@pytest.mark.parametrize(("offset", "taught"), [(0, True), (1, False)])
def test_label_texts_are_left_out_where_training_points_contradict_them(texts: Path, offset: int, taught: bool) -> None:
    """Points with a label's text and that label in their own, or another."""
    dataset, _ = load(texts, tiny("mach-reranked"))
    assert dataset.label_bags is not None
    assert dataset.label_words is not None
    targets = csr_array(np.roll(np.eye(8, dtype=np.float32), offset, axis=1))
    alike = replace(dataset, train=Rows(dataset.label_bags, targets, dataset.label_words))
    made, without, with_them = (
        fitted(alike, RerankerConfig(label_texts=label_texts)).chosen.weights for label_texts in (None, 0.0, 1.0)
    )
    assert (without != with_them).nnz > 0
    assert (made != (with_them if taught else without)).nnz == 0


def test_nominees_are_taken_where_they_help(texts: Path) -> None:
    """A model that only ever finds labels 0 and 1 needs them; one that finds the true labels does not."""
    dataset, _ = load(texts, tiny("mach-reranked"))
    config = RerankerConfig(candidates=2, nominees=3, label_texts=0)

    def rank_perfectly(inputs: csr_array, k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        rows = dataset.train if inputs.shape[0] != len(dataset.validation) else dataset.validation
        targets_NL = rows.targets.toarray()
        labels_NK = np.argsort(-targets_NL, axis=1, kind="stable")[:, :k]
        return labels_NK, np.take_along_axis(targets_NL, labels_NK, axis=1).astype(np.float32)

    assert fitted(dataset, config).chosen.mixture.nominees == 3
    assert fitted(dataset, config.model_copy(update={"nominees": 0})).chosen.mixture.nominees == 0
    assert fitted(dataset, config, rank_perfectly).chosen.mixture.nominees == 0
