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


@dataclass(frozen=True)
class Weighing:
    """How rows become what classifiers read.

    Attributes:
        terms: which columns the terms of texts have; None for features, which keep theirs.
        idf: float32 (W,), of terms, or of features that are only ever present; None for features that have values.
    """

    terms: Terms | None
    idf: NDArray[np.float32] | None


def learn_weighing(dataset: Dataset, most_pairs: int, piece_count: int) -> Weighing:
    """Terms of texts and their IDF; IDF of features where all that are there have the value 1.

    Args:
        dataset: what is trained on; of texts, with tokens in reading order.
        most_pairs: see `training.terms.Terms.learn`.
        piece_count: the same.
    """
    train = dataset.train
    if dataset.tokenizer is None:
        present = bool((train.inputs.data == 1).all())
        return Weighing(None, inverse_document_frequency(train.inputs) if present else None)
    parts = [train.reading] + ([dataset.label_words] if dataset.label_words is not None else [])
    terms = Terms.learn(dataset.tokenizer, piece_count, most_pairs, parts)
    return Weighing(terms, inverse_document_frequency(terms.count(train.reading)))


def unit_rows(words: csr_array, weighing: Weighing) -> csr_array:
    """What classifiers read, at unit length: of texts (1 + ln count) * idf of their terms, of features value * idf.

    Rows of nothing stay so.

    Args:
        words: see `Reranker.rerank`.
        weighing: which terms there are, and their IDF.

    Returns:
        float32 CSR (N, W).
    """
    if weighing.terms is None:
        rows = words.copy()
    else:
        rows = weighing.terms.count(words)
        rows.data = 1 + np.log(rows.data)
    if weighing.idf is not None:
        rows.data = rows.data * weighing.idf[rows.indices]
    squares_N = np.add.reduceat(np.append(np.square(rows.data), 0), rows.indptr[:-1]) * (np.diff(rows.indptr) > 0)
    lengths_N = np.sqrt(np.where(squares_N > 0, squares_N, 1))
    rows.data = (rows.data / np.repeat(lengths_N, np.diff(rows.indptr))).astype(np.float32)
    return rows
