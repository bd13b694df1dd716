"""A data folder as the sparse vectors that linear tree libraries take, and the time that takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix, vstack
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import normalize

from training.data.points import Point
from training.data.records import Source


@dataclass(frozen=True)
class Vectors:
    """Training and test rows.

    Attributes:
        train_NF: float32 CSR, rows of unit length.
        labels_NL: 1 for every true label of a training row, float32 CSR.
        test_NF: the same of the test split.
        one: the vector of a test row, from what a user would send; for its time.
        settings: how vectors are made, in words.
    """

    train_NF: csr_matrix
    labels_NL: csr_matrix
    test_NF: csr_matrix
    one: Callable[[int], csr_matrix]
    settings: str


def read_vectors(source: Source) -> Vectors:
    """TF-IDF of word unigrams, learned from the training split; features as given. Either of unit length."""
    train, test = list(source.points("trn")), list(source.points("tst"))
    rows = [point.labels for point in train]
    labels_NL = _csr(rows, [np.ones(len(row), np.float32) for row in rows], source.card.label_count)
    if source.card.input == "features":
        width = source.card.feature_count
        assert width is not None
        return Vectors(
            _features(train, width),
            labels_NL,
            _features(test, width),
            lambda row: _features(test[row : row + 1], width),
            "features of unit length",
        )
    vectorizer = TfidfVectorizer(sublinear_tf=True, min_df=2, dtype=np.float32)
    train_NF = csr_matrix(vectorizer.fit_transform([point.text or "" for point in train]))
    test_NF = csr_matrix(vectorizer.transform([point.text or "" for point in test]))
    one: Callable[[int], csr_matrix] = lambda row: csr_matrix(vectorizer.transform([test[row].text or ""]))  # noqa: E731
    return Vectors(train_NF, labels_NL, test_NF, one, "TF-IDF of words, sublinear, min_df 2")


def _features(points: list[Point], width: int) -> csr_matrix:
    indices = [point.indices for point in points if point.indices is not None]
    values = [point.values for point in points if point.values is not None]
    return csr_matrix(normalize(_csr(indices, values, width)))


def _csr(indices: list[np.ndarray], values: list[np.ndarray], width: int) -> csr_matrix:
    indptr = np.concatenate([[0], np.cumsum([len(row) for row in indices])])
    matrix = csr_matrix((np.concatenate(values), np.concatenate(indices), indptr), shape=(len(indices), width))
    return vstack([matrix], format="csr", dtype=np.float32)
