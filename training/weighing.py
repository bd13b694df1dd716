"""From what rows read to what word classifiers see: columns, weights, and unit length.

Letters: N rows, V tokens or features, W terms or features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from training.data.dataset import Dataset
from training.terms import Terms
from training.vocabulary import inverse_document_frequency

ROWS_AT_ONCE = 8192


@dataclass(frozen=True)
class Weighing:
    """How rows become what classifiers read.

    Attributes:
        terms: which columns the terms of texts have; None for features, which keep theirs.
        idf: float32 (W,), of terms, or of features that are only ever present; None for features that have values.
    """

    terms: Terms | None
    idf: NDArray[np.float32] | None


def learn_terms(dataset: Dataset, most_pairs: int, piece_count: int) -> Terms | None:
    """Terms of a data set's texts, those of its labels among them; None for features.

    Args:
        dataset: what is trained on; of texts, with tokens in reading order.
        most_pairs: see `training.terms.Terms.learn`.
        piece_count: the same.
    """
    if dataset.tokenizer is None:
        return None
    parts = [dataset.train.reading] + ([dataset.label_words] if dataset.label_words is not None else [])
    return Terms.learn(dataset.tokenizer, piece_count, most_pairs, parts)


def learn_weighing(terms: Terms | None, words: csr_array, train_rows: int) -> tuple[Weighing, csr_array]:
    """IDF of terms, or of features where all that are there have the value 1; and rows so weighed.

    Args:
        terms: of texts.
        words: see `unit_rows`.
        train_rows: so many rows, the first, are training points, which IDF is that of.

    Returns:
        The weighing, and ``unit_rows`` of it, float32 CSR (N, W).
    """
    counted = _counted(words, terms)
    train = first_rows(counted, train_rows)
    weighted = terms is not None or bool((train.data == 1).all())
    weighing = Weighing(terms, inverse_document_frequency(train) if weighted else None)
    _weigh(counted, weighing)
    return weighing, counted


def unit_rows(words: csr_array, weighing: Weighing) -> csr_array:
    """What classifiers read, at unit length: of texts (1 + ln count) * idf of their terms, of features value * idf.

    Rows of nothing stay so.

    Args:
        words: see `training.reranker.Reranker.rerank`.
        weighing: which terms there are, and their IDF.

    Returns:
        float32 CSR (N, W).
    """
    counted = _counted(words, weighing.terms)
    _weigh(counted, weighing)
    return counted


def first_rows(matrix: csr_array, count: int) -> csr_array:
    """The first rows of a matrix, which shares its memory."""
    end = matrix.indptr[count]
    cells = (matrix.data[:end], matrix.indices[:end], matrix.indptr[: count + 1])
    return csr_array(cells, shape=(count, matrix.shape[1]))


def _counted(words: csr_array, terms: Terms | None) -> csr_array:
    return words.copy() if terms is None else terms.count(words)


def _weigh(rows: csr_array, weighing: Weighing) -> None:
    """Turn counts into weights at unit length, in place and few rows at a time: rows may be most of what is held."""
    for start in range(0, rows.shape[0], ROWS_AT_ONCE):
        offsets = rows.indptr[start : start + ROWS_AT_ONCE + 1]
        cells = slice(offsets[0], offsets[-1])
        values, lengths = rows.data[cells], np.diff(offsets)
        if weighing.terms is not None:
            np.log(values, out=values)
            values += 1
        if weighing.idf is not None:
            values *= weighing.idf[rows.indices[cells]]
        squares = np.add.reduceat(np.append(np.square(values), np.float32(0)), offsets[:-1] - offsets[0])
        squares = np.where((lengths > 0) & (squares > 0), squares, 1)
        values /= np.repeat(np.sqrt(squares), lengths)
