"""What every ranking of a test split is scored against, and its scores.

Free of torch: other libraries' environments read the data through this module too.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from training import metrics
from training.data.records import Source

SPLIT = "tst"
KS = (1, 3, 5, 100)
PARTS = ("head", "torso", "tail")
PART_K = 5


@dataclass(frozen=True)
class Part:
    """Labels of like training frequency.

    Attributes:
        name: head, torso or tail.
        least: training points that a label of the part has at least.
        most: and at most.
        labels: how many labels these are.
        positives: test positives of theirs.
    """

    name: str
    least: int
    most: int
    labels: int
    positives: int


@dataclass(frozen=True)
class Truth:
    """The test split without its inputs.

    Attributes:
        targets_NL: true labels, float32 CSR (N, L).
        removed_NL: pairs of the filter file, which count as no prediction, bool CSR (N, L).
        label_counts_L: training points of each label.
        train_rows: training points.
        inverse_propensities_L: weights of hits in PSP.
        parts: head, torso and tail.
        part_L: position in ``parts`` of each label's part.
    """

    targets_NL: csr_array
    removed_NL: csr_array
    label_counts_L: NDArray[np.int64]
    train_rows: int
    inverse_propensities_L: NDArray[np.float64]
    parts: tuple[Part, ...]
    part_L: NDArray[np.int64]

    @property
    def digest(self) -> str:
        """Tells whether two rankings are of the same rows: sha256 of the true labels."""
        digest = hashlib.sha256()
        for array in (self.targets_NL.indptr, self.targets_NL.indices):
            digest.update(array.astype("<i8").tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class Scores:
    """How good a ranking is, in percent.

    Attributes:
        measures: by name, as `training.metrics.report` gives them, at 1, 3, 5 and 100.
        part_precision: contribution of each part's labels to P@5; together they are P@5.
        part_recall: share of each part's test positives that are among the first 5.
    """

    measures: dict[str, float]
    part_precision: dict[str, float]
    part_recall: dict[str, float]


def read_truth(source: Source) -> Truth:
    """Count the training labels and read those of the test split.

    Raises:
        DataError: a split is missing or malformed.
    """
    train_NL, targets_NL = _targets(source, "trn"), _targets(source, SPLIT)
    label_counts_L = np.bincount(train_NL.indices, minlength=train_NL.shape[1])
    pairs = source.filter_pairs(SPLIT)
    removed_NL = csr_array((np.ones(len(pairs), dtype=bool), (pairs[:, 0], pairs[:, 1])), shape=targets_NL.shape)
    card, train_rows = source.card, int(train_NL.shape[0])
    parts, part_L = split_labels(label_counts_L, np.bincount(targets_NL.indices, minlength=targets_NL.shape[1]))
    return Truth(
        targets_NL=targets_NL,
        removed_NL=removed_NL,
        label_counts_L=label_counts_L,
        train_rows=train_rows,
        inverse_propensities_L=metrics.inverse_propensities(
            label_counts_L, train_rows, card.propensity_a, card.propensity_b
        ),
        parts=parts,
        part_L=part_L,
    )


def split_labels(
    label_counts_L: NDArray[np.int64], positives_L: NDArray[np.int64]
) -> tuple[tuple[Part, ...], NDArray[np.int64]]:
    """Cut the labels, by falling training frequency, into three parts of about equally many test positives each.

    Labels of one frequency stay together, so bounds can be named and shares are thirds only about. Contributions to P@5
    by parts of equal volume are how DECAF (Mittal et al., WSDM 2021) and its successors show what rare labels gain.

    Returns:
        Head, torso and tail, fewer where the data has fewer frequencies; each label's part, int64 (L,).
    """
    order = np.argsort(-label_counts_L, kind="stable")
    counts, starts = np.unique(-label_counts_L[order], return_index=True)
    positives = np.add.reduceat(positives_L[order], starts)
    # A frequency belongs to the part in which the middle of its positives lies.
    middles = (np.cumsum(positives) - positives / 2) / max(1, positives.sum())
    part_of = np.minimum((middles * len(PARTS)).astype(np.int64), len(PARTS) - 1)
    part_L = np.empty(len(label_counts_L), dtype=np.int64)
    part_L[order] = np.repeat(part_of, np.diff([*starts, len(order)]))
    used = np.unique(part_of)
    part_L = np.searchsorted(used, part_L)
    parts = []
    for place, number in enumerate(used):
        inside = part_L == place
        least, most = -counts[part_of == number][-1], -counts[part_of == number][0]
        parts.append(Part(PARTS[number], int(least), int(most), int(inside.sum()), int(positives_L[inside].sum())))
    return tuple(parts), part_L


def score(ranked_NK: NDArray[np.int64], truth: Truth) -> Scores:
    """Score a ranking of the test split, int64 (N, 100), padded with -1."""
    ranked_NK = without(ranked_NK, truth.removed_NL)
    measures = metrics.report(ranked_NK, truth.targets_NL, truth.inverse_propensities_L, KS)
    hits_NK = metrics.hits(ranked_NK[:, :PART_K], truth.targets_NL)
    found_S = np.bincount(truth.part_L[ranked_NK[:, :PART_K][hits_NK]], minlength=len(truth.parts))
    places = len(ranked_NK) * PART_K
    return Scores(
        measures=measures,
        part_precision={part.name: 100 * int(found) / places for part, found in zip(truth.parts, found_S, strict=True)},
        part_recall={
            part.name: 100 * int(found) / max(1, part.positives)
            for part, found in zip(truth.parts, found_S, strict=True)
        },
    )


def constant_ranking(truth: Truth) -> NDArray[np.int64]:
    """The most frequent training labels for every row, int64 (N, 100), padded with -1."""
    rows, labels = truth.targets_NL.shape
    ranked_NK = np.full((rows, max(KS)), metrics.PADDING, dtype=np.int64)
    constant_NK = metrics.constant_ranking(truth.label_counts_L, rows, min(max(KS), labels))
    ranked_NK[:, : constant_NK.shape[1]] = constant_NK
    return ranked_NK


def without(ranked_NK: NDArray[np.int64], removed_NL: csr_array) -> NDArray[np.int64]:
    """The ranking with some pairs taken out; those behind move up, and -1 fills the end."""
    if not removed_NL.nnz:
        return ranked_NK
    gone_NK = metrics.hits(ranked_NK, removed_NL)
    order_NK = np.argsort(gone_NK, axis=1, kind="stable")
    return np.take_along_axis(np.where(gone_NK, metrics.PADDING, ranked_NK), order_NK, axis=1)


def _targets(source: Source, split: str) -> csr_array:
    labels = [point.labels for point in source.points(split)]
    indptr = np.concatenate([[0], np.cumsum([len(row) for row in labels], dtype=np.int64)])
    indices = np.concatenate(labels).astype(np.int32)
    ones = np.ones(len(indices), dtype=np.float32)
    return csr_array((ones, indices, indptr), shape=(len(labels), source.card.label_count))
