"""A data folder made ready: the held-out rows, counts, label bags and samples are those of its points."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_array

from tests.training.synthetic import LABELS, count_tokens, matrix, write_features, write_texts
from training.data.dataset import Dataset, UnsuitableData, load_dataset, read_rows
from training.data.records import open_source
from training.methods.base import Shape
from training.tokens import as_encoded, read_words
from training.vocabulary import VocabularyConfig

VOCABULARY = VocabularyConfig(min_count=1, subwords=60, max_tokens=4)


def load(folder: Path, *, fraction: float = 0.25, seed: int = 0, in_order: bool = False) -> Dataset:
    return load_dataset(open_source(folder), VOCABULARY, validation_fraction=fraction, seed=seed, in_order=in_order)


def same_tokens(one: csr_array, other: csr_array) -> bool:
    """Whether two matrices hold the same ids in the same order."""
    same = np.array_equal(one.indices, other.indices) and np.array_equal(one.indptr, other.indptr)
    return same and one.shape == other.shape and np.array_equal(one.data, other.data)


def test_training_rows_are_split_by_share_and_seed(texts: Path) -> None:
    whole = load(texts, fraction=0.25)
    assert (len(whole.train), len(whole.validation)) == (45, 15)
    rows = read_rows(open_source(texts), "trn", whole.tokenizer, VOCABULARY)
    parts = np.vstack([whole.train.inputs.toarray(), whole.validation.inputs.toarray()])
    assert sorted(map(tuple, parts)) == sorted(map(tuple, rows.inputs.toarray()))
    again, other = load(texts, seed=0), load(texts, seed=1)
    assert whole.samples == again.samples != other.samples
    np.testing.assert_array_equal(whole.train.targets.toarray(), again.train.targets.toarray())


def test_the_smallest_share_is_one_row(texts: Path) -> None:
    dataset = load(texts, fraction=0.001)
    assert (len(dataset.train), len(dataset.validation)) == (59, 1)


@pytest.mark.parametrize(("fraction", "least", "held"), [(None, 0, 3), (None, 10, 10), (None, 40, 12), (0.05, 40, 3)])
def test_few_rows_are_held_out_in_larger_shares_where_that_is_asked_for(
    texts: Path, fraction: float | None, least: int, held: int
) -> None:
    source = open_source(texts)
    dataset = load_dataset(source, VOCABULARY, validation_fraction=fraction, seed=0, least_held=least)
    assert (len(dataset.train), len(dataset.validation)) == (60 - held, held)


def test_a_share_that_leaves_nothing_to_train_on_is_refused(texts: Path) -> None:
    with pytest.raises(UnsuitableData, match="expected training and validation rows, found 0 and 60"):
        load(texts, fraction=0.999)


def test_a_dev_split_is_the_validation_set(tmp_path: Path) -> None:
    folder = write_texts(tmp_path / "data", dev=7)
    dataset = load(folder)
    titles = [json.loads(line)["title"] for line in (folder / "dev.json").read_text().splitlines()]
    assert (len(dataset.train), len(dataset.validation)) == (60, 7)
    assert dataset.samples == titles
    assert dataset.label_counts.sum() == dataset.train.targets.nnz


def test_counts_include_the_rows_held_out(texts: Path) -> None:
    dataset = load(texts)
    counts = (dataset.train.targets.toarray() > 0).sum(axis=0) + (dataset.validation.targets.toarray() > 0).sum(axis=0)
    np.testing.assert_array_equal(dataset.label_counts, counts)


def test_samples_are_the_validation_rows_as_a_user_would_send_them(texts: Path, features: Path) -> None:
    dataset = load(texts)
    assert dataset.tokenizer is not None
    bags = count_tokens(dataset.tokenizer, [str(text) for text in dataset.samples], 4)
    np.testing.assert_array_equal(bags.toarray(), dataset.validation.inputs.toarray())
    dataset = load(features)
    sent = [dict(zip(sample["indices"], sample["values"], strict=True)) for sample in dataset.samples]  # type: ignore[index]
    np.testing.assert_array_equal(matrix(sent, LABELS + 4).toarray(), dataset.validation.inputs.toarray())


def test_at_most_64_samples(tmp_path: Path) -> None:
    dataset = load(write_texts(tmp_path / "data", points=300), fraction=0.5)
    assert (len(dataset.validation), len(dataset.samples)) == (150, 64)


def test_label_texts_become_bags(texts: Path) -> None:
    dataset = load(texts)
    assert dataset.tokenizer is not None
    assert dataset.label_texts is not None
    assert dataset.label_bags is not None
    expected = count_tokens(dataset.tokenizer, dataset.label_texts, 4)
    np.testing.assert_array_equal(dataset.label_bags.toarray(), expected.toarray())


@pytest.mark.parametrize("dev", [0, 9])
def test_tokens_are_kept_in_reading_order_where_they_are_asked_for(tmp_path: Path, dev: int) -> None:
    folder = write_texts(tmp_path / "data", dev=dev)
    dataset = load(folder, in_order=True)
    tokenizer, label_texts = dataset.tokenizer, dataset.label_texts
    assert tokenizer is not None
    assert label_texts is not None
    assert dataset.label_words is not None
    assert dataset.validation.words is not None
    samples = [str(sample) for sample in dataset.samples]
    assert same_tokens(dataset.validation.words, read_words(tokenizer, samples, VOCABULARY, 4))
    assert same_tokens(dataset.label_words, read_words(tokenizer, label_texts, VOCABULARY, 4))
    assert dataset.label_bags is not None
    for words, bags in (
        (dataset.train.words, dataset.train.inputs),
        (dataset.validation.words, dataset.validation.inputs),
        (dataset.label_words, dataset.label_bags),
    ):
        assert words is not None
        assert same_tokens(as_encoded(words, VOCABULARY), bags)
        assert not words.has_canonical_format
    assert dataset.train.reading is dataset.train.words
    rows = np.array([5, 0])
    assert same_tokens(dataset.train.take(rows).reading, dataset.train.words[rows])


def test_without_tokens_in_reading_order_inputs_are_read(texts: Path, features: Path) -> None:
    unasked, of_features = load(texts), load(features, in_order=True)
    for dataset in (unasked, of_features):
        assert dataset.train.words is None
        assert dataset.validation.words is None
        assert dataset.label_words is None
        assert dataset.train.reading is dataset.train.inputs
        assert dataset.train.take(np.arange(3)).words is None


@pytest.mark.parametrize("dev", [0, 9])
def test_a_data_set_knows_whether_its_validation_rows_were_drawn(tmp_path: Path, dev: int) -> None:
    assert load(write_texts(tmp_path / "data", dev=dev)).validation_drawn is (dev == 0)


@pytest.mark.parametrize("kind", ["features", "texts without label texts"])
def test_without_label_texts_there_are_no_label_bags(features: Path, tmp_path: Path, kind: str) -> None:
    folder = features if kind == "features" else write_texts(tmp_path / "data", label_texts=False)
    assert load(folder).label_bags is None


def test_words_of_label_texts_are_in_the_vocabulary(tmp_path: Path) -> None:
    folder = write_texts(tmp_path / "data")
    with (folder / "lbl.json").open("a") as file:
        file.write('{"uid": "rare", "title": "quokka"}\n')
    dataset = load(folder)
    assert dataset.label_counts[LABELS:].tolist() == [0]
    tokenizer = dataset.tokenizer
    assert tokenizer is not None
    assert tokenizer.encode("quokka", add_special_tokens=False).tokens == ["quokka"]


def test_relevances_are_kept(tmp_path: Path) -> None:
    folder = write_texts(tmp_path / "data", points=1)
    record = {"uid": "a", "title": "red house", "target_ind": [1, 4], "target_rel": [0.25, 2.0]}
    (folder / "trn.json").write_text((json.dumps(record) + "\n") * 2)
    targets = load(folder).train.targets
    assert dict(zip(targets.indices.tolist(), targets.data.tolist(), strict=True)) == {1: 0.25, 4: 2.0}


def test_rows_do_not_depend_on_the_size_of_a_chunk(texts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, tokenizer = open_source(texts), load(texts).tokenizer
    whole = read_rows(source, "trn", tokenizer, VOCABULARY, in_order=True)
    monkeypatch.setattr("training.data.dataset.CHUNK_TEXTS", 7)
    parts = read_rows(source, "trn", tokenizer, VOCABULARY, in_order=True)
    assert same_tokens(parts.reading, whole.reading)
    for name in ("inputs", "targets", "words"):
        np.testing.assert_array_equal(getattr(parts, name).toarray(), getattr(whole, name).toarray())
        assert getattr(parts, name).dtype == np.float32


def test_one_point_cannot_be_split(tmp_path: Path) -> None:
    with pytest.raises(UnsuitableData, match="expected training and validation rows, found 0 and 1"):
        load(write_features(tmp_path / "data", points=1))


@pytest.mark.parametrize(("labels", "single"), [([[0], [3]], True), ([[0], [3, 4]], False), ([[0], []], False)])
def test_shape(tmp_path: Path, labels: list[list[int]], single: bool) -> None:
    folder = write_texts(tmp_path / "data", dev=1)
    records = ({"uid": str(row), "title": "red", "target_ind": own} for row, own in enumerate(labels))
    (folder / "trn.json").write_text("".join(json.dumps(record) + "\n" for record in records))
    dataset = load(folder)
    assert dataset.tokenizer is not None
    assert Shape.of(dataset) == Shape(
        input_width=dataset.tokenizer.get_vocab_size(), label_count=LABELS, train_rows=2, text=True, single_label=single
    )
