"""The rows that word classifiers learn from, as they read them.

A label's own text, where there is one, is a positive row of its classifier: often the only one that a rare label has.

Letters: N rows, R of them, L labels, V tokens or features, W terms or features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, eye_array, vstack

from training.data.dataset import Dataset
from training.twins import have_their_labels, rows_with_label_texts
from training.weighing import Weighing, first_rows, learn_terms, learn_weighing


@dataclass(frozen=True)
class WordRows:
    """Training points, then label texts where they are wanted, then the held-out points.

    Attributes:
        dataset: what the rows are of.
        weighing: how they became what they are.
        unit_NW: all rows, of unit length, float32 CSR.
        targets_NL: their relevances, float32 CSR.
        count: rows that are learned from: all but the held-out ones.
    """

    dataset: Dataset
    weighing: Weighing
    unit_NW: csr_array
    targets_NL: csr_array
    count: int

    @property
    def learned(self) -> tuple[csr_array, csr_array]:
        """Inputs and relevances of the rows that are learned from."""
        return first_rows(self.unit_NW, self.count), first_rows(self.targets_NL, self.count)

    @property
    def held_NW(self) -> csr_array:
        """The held-out rows."""
        return csr_array(self.unit_NW[self.count :])

    def inputs(self, rows_R: NDArray[np.int64]) -> csr_array:
        """What the model reads of some of the rows that are learned from, given in rising order: CSR (R, V)."""
        train, bags = self.dataset.train.inputs, self.dataset.label_bags
        own = rows_R < train.shape[0]
        if bags is None or own.all():
            return csr_array(train[rows_R])
        return below(train[rows_R[own]], bags[rows_R[~own] - train.shape[0]])


def word_rows(dataset: Dataset, label_texts: float | None, most_pairs: int, piece_count: int) -> WordRows:
    """Rows of a data set as classifiers read them.

    Args:
        dataset: of texts, with tokens in reading order.
        label_texts: relevance of a label to its own text; None: 1, or 0 where training points that have some label's
            text mostly lack that label.
        most_pairs: see `training.terms.Terms.learn`.
        piece_count: the same.
    """
    train, held = dataset.train, dataset.validation
    words, targets = [train.reading], [train.targets]
    relevance = _relevance(dataset) if label_texts is None else label_texts
    if dataset.label_words is not None and relevance:
        words.append(dataset.label_words)
        targets.append(relevance * eye_array(dataset.label_count, format="csr", dtype=np.float32))
    count = sum(part.shape[0] for part in words)
    terms = learn_terms(dataset, most_pairs, piece_count)
    weighing, unit_NW = learn_weighing(terms, below(*words, held.reading), len(train))
    return WordRows(dataset, weighing, unit_NW, below(*targets, held.targets), count)


def below(*parts: csr_array) -> csr_array:
    """Rows below rows."""
    return csr_array(vstack(parts, format="csr"))


def _relevance(dataset: Dataset) -> float:
    if dataset.label_bags is None:
        return 0.0
    return float(have_their_labels(dataset.train, rows_with_label_texts(dataset.train, dataset.label_bags)))
