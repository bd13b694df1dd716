"""MACH: every label's score from the scores of the R buckets that it was hashed into, exactly, for all labels.

Medini et al., "Extreme Classification in Log Memory using Count-Min Sketch", NeurIPS 2019.

Letters: Q queries, R repetitions, B buckets, L labels (of a block).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from service.bundle import Bundle, layout
from service.bundle.manifest import Activation, Aggregation, MachSection
from service.decoders.buckets import Buckets, Scores, fold
from service.topk import TopK, ranges, select_in_blocks

OUTPUT = "bucket_logits"

# Bucket scores sorted at a time: half a megabyte fits a core's L2 cache.
BLOCK_SCORES = 1 << 17

FLOAT = np.float32


class MachDecoder:
    """Aggregates bucket scores; the bucket table stays memory-mapped in its narrow type."""

    def __init__(self, section: MachSection, buckets_RL: Buckets) -> None:
        self.required_outputs = {OUTPUT: (section.repetitions, section.buckets)}
        self._section = section
        self._buckets_RL = buckets_RL

    @classmethod
    def from_bundle(cls, bundle: Bundle, *, threads: int) -> MachDecoder:
        """See ``Decoder``; gathering is bound by memory and takes one thread."""
        section = bundle.manifest.method
        assert isinstance(section, MachSection)
        return cls(section, bundle.arrays[layout.MACH_BUCKETS])

    def decode(self, outputs: Mapping[str, Scores], k: int) -> TopK:
        """See ``Decoder``."""
        scores_QRB = bucket_scores(outputs[OUTPUT], self._section.activation, self._section.aggregation)
        return select_in_blocks(
            lambda low, high: self._label_scores(scores_QRB, low, high),
            query_count=len(scores_QRB),
            label_count=self._buckets_RL.shape[1],
            k=k,
        )

    def _label_scores(self, scores_QRB: Scores, low: int, high: int) -> Scores:
        if self._section.aggregation == "median":
            return _medians(scores_QRB, self._buckets_RL[:, low:high])
        return fold(scores_QRB, self._buckets_RL, low, high, least=self._section.aggregation == "min")


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


def _medians(scores_QRB: Scores, buckets_RL: Buckets) -> Scores:
    """Median of the bucket scores of every label, (Q, L); the mean of the middle two when R is even."""
    Q, R, _ = scores_QRB.shape
    scores_RBQ = np.ascontiguousarray(scores_QRB.transpose(1, 2, 0))
    medians_LQ = np.empty((buckets_RL.shape[1], Q), dtype=FLOAT)
    for low, high in ranges(len(medians_LQ), BLOCK_SCORES // (Q * R)):
        gathered_LQR = np.empty((high - low, Q, R), dtype=FLOAT)
        for repetition, (scores_BQ, buckets_L) in enumerate(zip(scores_RBQ, buckets_RL[:, low:high], strict=True)):
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
