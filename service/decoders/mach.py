"""MACH: every label's score from the scores of the R buckets that it was hashed into, exactly, for all labels.

Medini et al., "Extreme Classification in Log Memory using Count-Min Sketch", NeurIPS 2019. Bucket scores are laid out
as (R, B, Q), so that gathering a bucket copies one run of memory for all queries; labels go in blocks that fit a cache.

Letters: Q queries, R repetitions, B buckets, L labels (of a block).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.bundle import Bundle, layout
from service.bundle.manifest import Activation, Aggregation, MachSection
from service.topk import TopK, ranges, select_in_blocks

OUTPUT = "bucket_logits"

# Scores accumulated at a time: half a megabyte, and as much again for the gathered buckets, fits a core's L2 cache.
BLOCK_SCORES = 1 << 17

FLOAT = np.float32
Scores = NDArray[np.float32]


class MachDecoder:
    """Gathers and aggregates bucket scores; the bucket table stays memory-mapped in its narrow type."""

    def __init__(self, section: MachSection, buckets_RL: NDArray[Any]) -> None:
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
        scores_RBQ = np.ascontiguousarray(scores_QRB.transpose(1, 2, 0))
        return select_in_blocks(
            lambda low, high: self._label_scores(scores_RBQ, self._buckets_RL[:, low:high]).T,
            query_count=scores_RBQ.shape[2],
            label_count=self._buckets_RL.shape[1],
            k=k,
        )

    def _label_scores(self, scores_RBQ: Scores, buckets_RL: NDArray[Any]) -> Scores:
        L, Q = buckets_RL.shape[1], scores_RBQ.shape[2]
        scores_LQ = np.empty((L, Q), dtype=FLOAT)
        if self._section.aggregation == "median":
            for low, high in ranges(L, BLOCK_SCORES // (Q * len(buckets_RL))):
                _median(scores_RBQ, buckets_RL[:, low:high], out=scores_LQ[low:high])
            return scores_LQ
        fold = np.minimum if self._section.aggregation == "min" else np.add
        for low, high in ranges(L, BLOCK_SCORES // Q):
            _fold(fold, scores_RBQ, buckets_RL[:, low:high], out=scores_LQ[low:high])
        return scores_LQ


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


def _fold(fold: np.ufunc, scores_RBQ: Scores, buckets_RL: NDArray[Any], out: Scores) -> None:
    scores_RBQ[0].take(buckets_RL[0], axis=0, out=out, mode="clip")
    gathered_LQ = np.empty_like(out)
    for scores_BQ, buckets_L in zip(scores_RBQ[1:], buckets_RL[1:], strict=True):
        # The table was checked when the bundle was opened; "clip" spares numpy a second copy, nothing is ever clipped.
        scores_BQ.take(buckets_L, axis=0, out=gathered_LQ, mode="clip")
        fold(out, gathered_LQ, out=out)


def _median(scores_RBQ: Scores, buckets_RL: NDArray[Any], out: Scores) -> None:
    R = len(buckets_RL)
    gathered_LQR = np.empty((*out.shape, R), dtype=FLOAT)
    for repetition, (scores_BQ, buckets_L) in enumerate(zip(scores_RBQ, buckets_RL, strict=True)):
        gathered_LQR[:, :, repetition] = scores_BQ[buckets_L]
    gathered_LQR.sort(axis=2)  # many short runs: seven times as fast as numpy's median, which partitions
    np.add(gathered_LQR[:, :, (R - 1) // 2], gathered_LQR[:, :, R // 2], out=out)
    out *= FLOAT(0.5)


def _sigmoid(logits: Scores) -> Scores:
    decay = np.exp(-np.abs(logits))  # at most 1: nothing overflows, and tiny probabilities keep their digits
    return np.divide(np.where(logits >= 0, FLOAT(1), decay), FLOAT(1) + decay, dtype=FLOAT)


def _softmax(logits_QRB: Scores) -> Scores:
    exponentials = np.exp(logits_QRB - logits_QRB.max(axis=2, keepdims=True))
    probabilities: Scores = exponentials / exponentials.sum(axis=2, keepdims=True)
    return probabilities
