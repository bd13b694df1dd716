"""The rows of word classifiers: which they are, in which order, and that none is held twice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array, eye_array, vstack

from tests.training.synthetic import feature_dataset, load, tiny
from training.data.dataset import Dataset
from training.vocabulary import inverse_document_frequency
from training.weighing import unit_rows
from training.word_rows import WordRows, word_rows

PIECES, PAIRS = 60, 100


@pytest.fixture(scope="module")
def dataset(texts: Path) -> Dataset:
    return load(texts, tiny("mach-reranked"))[0]


@pytest.fixture(scope="module")
def rows(dataset: Dataset) -> WordRows:
    return word_rows(dataset, 0.5, PAIRS, PIECES)


def test_points_then_label_texts_then_held_out_points(dataset: Dataset, rows: WordRows) -> None:
    train, held, labels = dataset.train, dataset.validation, dataset.label_words
    assert labels is not None
    assert rows.count == len(train) + 8
    parts = [unit_rows(words, rows.weighing) for words in (train.reading, labels, held.reading)]
    np.testing.assert_array_equal(rows.unit_NW.toarray(), vstack(parts).toarray())
    np.testing.assert_array_equal(rows.held_NW.toarray(), parts[2].toarray())
    targets = vstack([train.targets, 0.5 * eye_array(8), held.targets])
    np.testing.assert_array_equal(rows.targets_NL.toarray(), targets.toarray())
    np.testing.assert_array_equal(rows.learned[1].toarray(), targets.toarray()[: rows.count])


def test_idf_is_that_of_the_training_points(dataset: Dataset, rows: WordRows) -> None:
    assert rows.weighing.terms is not None
    expected = inverse_document_frequency(rows.weighing.terms.count(dataset.train.reading))
    np.testing.assert_array_equal(rows.weighing.idf, expected)


def test_rows_that_are_learned_from_are_no_copies(rows: WordRows) -> None:
    for part, whole in zip(rows.learned, (rows.unit_NW, rows.targets_NL), strict=True):
        assert np.shares_memory(part.data, whole.data)
        assert np.shares_memory(part.indices, whole.indices)


@given(chosen=st.sets(st.integers(0, 62)))
def test_the_model_reads_bags_of_points_and_of_label_texts(dataset: Dataset, rows: WordRows, chosen: set[int]) -> None:
    ids = np.array(sorted(row for row in chosen if row < rows.count), dtype=np.int64)
    every = vstack([dataset.train.inputs, dataset.label_bags], format="csr")
    np.testing.assert_array_equal(rows.inputs(ids).toarray(), every[ids].toarray())


def test_without_label_texts_there_are_points_alone(dataset: Dataset) -> None:
    assert word_rows(dataset, 0.0, PAIRS, PIECES).count == len(dataset.train)
    features = feature_dataset([{0: 3.0, 1: 4.0}, {1: 2.0}], [{0: 1.0}, {1: 1.0}], width=2, labels=2)
    rows = word_rows(features, 1.0, PAIRS, PIECES)
    assert rows.count == 2
    assert rows.weighing.terms is rows.weighing.idf is None
    np.testing.assert_allclose(rows.unit_NW.toarray(), [[0.6, 0.8], [0, 1]] * 2, rtol=1e-6)
    np.testing.assert_array_equal(rows.inputs(np.array([1])).toarray(), csr_array([[0.0, 2.0]]).toarray())
