"""MACH: every label's score from the scores of the R buckets that it was hashed into; the best labels, exactly.

Medini et al., "Extreme Classification in Log Memory using Count-Min Sketch", NeurIPS 2019.

Letters: Q queries, R repetitions, B buckets, L labels (of a block), K answers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from service.bundle import Bundle, layout
from service.bundle.manifest import Activation, Aggregation, MachSection
from service.decoders import pruned
from service.decoders.base import Scorer
from service.decoders.buckets import Buckets, Scores, fold, fold_rows
from service.decoders.parts import BucketPart, BucketParts
from service.decoders.rooms import Rooms
from service.search.topk import TopK, ranges, select_in_blocks

OUTPUT = "bucket_logits"

# Bucket scores sorted at a time: half a megabyte fits a core's L2 cache.
BLOCK_SCORES = 1 << 17

# Tables below this size are scored as a whole before a search has found out where to look.
SEARCHED_ENTRIES = 1 << 20
# Answers beyond these have scores that most labels come near to.
MOST_SEARCHED = 128
# After so many searches in a row for nothing, only every so many queries one is tried.
PATIENCE, RETRIED_EVERY = 8, 64

# See ``Scorer``.
CHEAP_LABELS = 1 << 15

FLOAT = np.float32


class _Worth:
    """Whether searches for some number of answers pay; a guess, which changes no answer."""

    def __init__(self) -> None:
        self._failures = 0

    def is_tried(self) -> bool:
        """Whether to try the next one."""
        return self._failures < PATIENCE or self._failures % RETRIED_EVERY == 0

    def learn(self, *, found: bool) -> None:
        """Take in how a search ended, or that there was none."""
        self._failures = 0 if found else self._failures + 1


class MachScorer:
    """See ``Scorer``.

    Args:
        section: sizes, and how scores are aggregated.
        buckets_LR: bucket of each label in each repetition.
    """

    exact = True
    cheap_labels = CHEAP_LABELS
    most_fetched = MOST_SEARCHED

    def __init__(self, section: MachSection, buckets_LR: Buckets) -> None:
        self._section = section
        self._buckets_LR = buckets_LR

    def score(self, outputs: Mapping[str, Scores], rows_N: NDArray[np.int64]) -> Scores:
        """See ``Scorer``."""
        aggregation = self._section.aggregation
        scores_QRB = bucket_scores(outputs[OUTPUT], self._section.activation, aggregation)
        if aggregation == "median":
            medians_N: Scores = _medians(scores_QRB, self._buckets_LR[rows_N])[0]
            return medians_N
        return fold_rows(scores_QRB[0], self._buckets_LR, rows_N, least=aggregation == "min")

    def explain(self, outputs: Mapping[str, Scores], rows_N: NDArray[np.int64]) -> list[BucketParts]:
        """See ``Scorer``; of equal scores the first repetitions count as the least, or as those below the median."""
        activation, aggregation = self._section.activation, self._section.aggregation
        shown_RB = bucket_scores(outputs[OUTPUT], activation, "sum_logits" if aggregation == "sum_logits" else "min")[0]
        brought_RB = bucket_scores(outputs[OUTPUT], activation, aggregation)[0]
        repetitions = np.arange(len(shown_RB))
        explained = []
        for buckets_R in self._buckets_LR[rows_N]:
            shown_R, brought_R = shown_RB[repetitions, buckets_R], brought_RB[repetitions, buckets_R]
            ranks_R = 1 + (shown_RB > shown_R[:, None]).sum(axis=1)
            values = (buckets_R, shown_R, ranks_R, brought_R * _shares(brought_R, aggregation))
            parts = zip(*(array.tolist() for array in values), strict=True)
            explained.append(BucketParts(tuple(BucketPart(*part) for part in parts)))
        return explained


class MachDecoder:
    """Aggregates bucket scores; the bucket table and its lists stay memory-mapped in their narrow types.

    Args:
        section: sizes, and how scores are aggregated.
        buckets_LR: bucket of each label in each repetition.
        lists: steps, partners and offsets, see `bundle.inverted`.
    """

    def __init__(self, section: MachSection, buckets_LR: Buckets, *lists: Buckets) -> None:
        self.required_outputs = {OUTPUT: (section.repetitions, section.buckets)}
        self.scorer: Scorer = MachScorer(section, buckets_LR)
        self._section = section
        self._buckets_LR = buckets_LR
        self._steps_N, self._partners_N, self._offsets_RB = lists
        self._far = int(np.iinfo(buckets_LR.dtype).max)
        self._rooms: Rooms[NDArray[np.int32]] = Rooms(self._make_room)
        self._worth: defaultdict[int, _Worth] = defaultdict(_Worth)

    @classmethod
    def from_bundle(cls, bundle: Bundle, *, threads: int) -> MachDecoder:
        """See ``Decoder``; gathering is bound by memory and takes one thread."""
        section, arrays = bundle.manifest.method, bundle.arrays
        assert isinstance(section, MachSection)
        names = (layout.MACH_INVERTED_STEPS, layout.MACH_INVERTED_PARTNERS, layout.MACH_INVERTED_OFFSETS)
        return cls(section, arrays[layout.MACH_BUCKETS], *(arrays[name] for name in names))

    def decode(self, outputs: Mapping[str, Scores], k: int) -> TopK:
        """See ``Decoder``."""
        scores_QRB = bucket_scores(outputs[OUTPUT], self._section.activation, self._section.aggregation)
        k = min(k, len(self._buckets_LR))
        if self._section.aggregation == "median" or k > MOST_SEARCHED or self._buckets_LR.size < SEARCHED_ENTRIES:
            return self._best_of_all(scores_QRB, k)
        return self._searched(scores_QRB, k)

    def _searched(self, scores_QRB: Scores, k: int) -> TopK:
        """Queries one by one; then all labels for those whose scores are too flat."""
        with self._rooms.taken() as kept_RB:
            return self._searched_in(kept_RB, scores_QRB, k)

    def _searched_in(self, kept_RB: NDArray[np.int32], scores_QRB: Scores, k: int) -> TopK:
        worth = self._worth[k]
        ids_QK = np.empty((len(scores_QRB), k), dtype=np.int64)
        best_QK = np.empty((len(scores_QRB), k), dtype=FLOAT)
        least, flat = self._section.aggregation == "min", []
        tops_QR = scores_QRB.max(axis=2)
        for query, scores_RB in enumerate(scores_QRB):
            found = worth.is_tried() and pruned.search(
                scores_RB,
                tops_QR[query],
                self._buckets_LR,
                self._steps_N,
                self._partners_N,
                self._offsets_RB,
                self._far,
                least,
                kept_RB,
                ids_QK[query],
                best_QK[query],
            )
            worth.learn(found=found)
            if not found:
                flat.append(query)
        if flat:
            rest = self._best_of_all(scores_QRB[flat], k)
            ids_QK[flat], best_QK[flat] = rest.ids_QK, rest.scores_QK
        return TopK(ids_QK, best_QK)

    def _make_room(self) -> NDArray[np.int32]:
        return np.empty((self._section.repetitions, self._section.buckets), dtype=np.int32)

    def _best_of_all(self, scores_QRB: Scores, k: int) -> TopK:
        return select_in_blocks(
            lambda low, high: self._label_scores(scores_QRB, low, high),
            query_count=len(scores_QRB),
            label_count=len(self._buckets_LR),
            k=k,
        )

    def _label_scores(self, scores_QRB: Scores, low: int, high: int) -> Scores:
        if self._section.aggregation == "median":
            return _medians(scores_QRB, self._buckets_LR[low:high])
        return fold(scores_QRB, self._buckets_LR, low, high, least=self._section.aggregation == "min")


def bucket_scores(logits_QRB: Scores, activation: Activation, aggregation: Aggregation) -> Scores:
    """What is aggregated over repetitions: logits as they are, or a function of probabilities.

    Means are prepared here (each bucket brings its R-th part), where there are fewer buckets than labels: "sum_logits",
    "mean_prob" and "unbiased" become sums. "min" and "median" are taken of probabilities.
    """
    if aggregation == "sum_logits":
        return logits_QRB
    probabilities_QRB = _softmax(logits_QRB) if activation == "softmax" else _sigmoid(logits_QRB)
    _, R, B = logits_QRB.shape
    if aggregation == "mean_prob":
        return probabilities_QRB / FLOAT(R)
    if aggregation == "unbiased":
        return (probabilities_QRB - FLOAT(1 / B)) * FLOAT(B / (B - 1) / R)
    return probabilities_QRB


def _shares(scores_R: Scores, aggregation: Aggregation) -> Scores:
    """How much of each repetition's score is in the aggregate."""
    R = len(scores_R)
    shares_R = np.ones(R, dtype=FLOAT)
    if aggregation in ("min", "median"):
        order_R = np.argsort(scores_R, kind="stable")
        middle = [0] if aggregation == "min" else sorted({(R - 1) // 2, R // 2})
        shares_R[:] = 0
        shares_R[order_R[middle]] = 1 / len(middle)
    return shares_R


def _medians(scores_QRB: Scores, buckets_LR: Buckets) -> Scores:
    """Median of the bucket scores of every label, (Q, L); the mean of the middle two when R is even."""
    Q, R, _ = scores_QRB.shape
    scores_RBQ = np.ascontiguousarray(scores_QRB.transpose(1, 2, 0))
    medians_LQ = np.empty((len(buckets_LR), Q), dtype=FLOAT)
    for low, high in ranges(len(medians_LQ), BLOCK_SCORES // (Q * R)):
        gathered_LQR = np.empty((high - low, Q, R), dtype=FLOAT)
        for repetition, (scores_BQ, buckets_L) in enumerate(zip(scores_RBQ, buckets_LR[low:high].T, strict=True)):
            gathered_LQR[:, :, repetition] = scores_BQ[buckets_L]
        gathered_LQR.sort(axis=2)  # many short runs: seven times as fast as numpy's median, which partitions
        medians_LQ[low:high] = (gathered_LQR[:, :, (R - 1) // 2] + gathered_LQR[:, :, R // 2]) * FLOAT(0.5)
    return medians_LQ.T


def _sigmoid(logits: Scores) -> Scores:
    decay = np.exp(-np.abs(logits))  # at most 1: nothing overflows, and tiny probabilities keep their digits
    return np.divide(np.where(logits >= 0, FLOAT(1), decay), FLOAT(1) + decay, dtype=FLOAT)


def _softmax(logits_QRB: Scores) -> Scores:
    exponentials = np.exp(logits_QRB - logits_QRB.max(axis=2, keepdims=True))
    probabilities: Scores = exponentials / exponentials.sum(axis=2, keepdims=True)
    return probabilities
