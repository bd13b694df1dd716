"""Exact search of label vectors on the device that encodes.

Half floats choose candidates, five times as fast as float32 in large batches; float32 scores them and orders the
answers, which are those of the CPU. The vectors lie in memory twice, in 6 bytes a number.

Letters: Q queries, D dimensions, W those of the half floats, L labels, N rows of half floats, C candidates, K answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto

from service.bundle import Bundle, layout
from service.bundle.searching import SearchSection
from service.decoders.base import Scorer
from service.decoders.search import OUTPUT, VectorScorer
from service.resident import best
from service.resident.answers import Answers, add_taken, finished
from service.resident.graph import Nodes, ResidentGraph, Value
from service.search.topk import TopK, ranges

VECTORS, HALVES, COUNT = "vectors", "halves", "k"
# Kernels for half floats want rows of a multiple of 16 bytes.
WIDTH_STEP = 8
# What the rows that fill the table up score, in a space where no true score is below minus D.
LEAST = -60_000.0
# So many that rounding to half floats decides about none of the answers; always the same number where that suffices, so
# that an answer is the beginning of every longer one.
CANDIDATES, CANDIDATES_PER_ANSWER = 256, 2
TINY = 1e-20
ROWS_AT_A_TIME = 1 << 16
# Half floats at a time: 512 MB.
MOST_SCORES = 1 << 28


class ResidentSearch:
    """Label vectors on the device; see ``Decoder``, but that outputs are `OrtValue`s."""

    def __init__(self, section: SearchSection, vectors_LD: NDArray[np.float32], device: str) -> None:
        L, D = vectors_LD.shape
        self.required_outputs: Mapping[str, tuple[int, ...]] = {OUTPUT: (D,)}
        self.scorer: Scorer = VectorScorer(section, vectors_LD)
        sizes = best.sizes(L)
        tables: dict[str, NDArray[Any]] = {
            VECTORS: np.ascontiguousarray(vectors_LD),
            HALVES: _halves(vectors_LD, sizes[0]),
        }

        def counts(k: int) -> dict[str, NDArray[np.int64]]:
            candidates = min(L, max(CANDIDATES, CANDIDATES_PER_ANSWER * k))
            return best.counts(sizes, candidates) | {COUNT: np.array([k])}

        graph = ResidentGraph(_graph(tables, sizes), tables, device)
        self._answers = Answers(
            graph, OUTPUT, counts, label_count=L, scores_per_query=sizes[0], most_scores=MOST_SCORES
        )

    @classmethod
    def from_bundle(cls, bundle: Bundle, section: SearchSection, device: str) -> ResidentSearch:
        """Copy the vectors of an exact index to the device."""
        return cls(section, bundle.arrays[layout.LABEL_VECTORS], device)

    def decode(self, outputs: Mapping[str, Any], k: int) -> TopK:
        """See ``Decoder``."""
        return self._answers.best(outputs, k)


def _halves(vectors_LD: NDArray[np.float32], rows: int) -> NDArray[np.float16]:
    """Vectors as half floats, divided by what makes the largest number 1 at most.

    The first additional dimension, in which queries are 1, tells the rows that fill the table up from labels.
    """
    L, D = vectors_LD.shape
    peak = max(TINY, *(float(np.abs(vectors_LD[low:high]).max()) for low, high in ranges(L, ROWS_AT_A_TIME)))
    halves_NW = np.zeros((rows, (D // WIDTH_STEP + 1) * WIDTH_STEP), dtype=np.float16)
    for low, high in ranges(L, ROWS_AT_A_TIME):
        halves_NW[low:high, :D] = vectors_LD[low:high] / np.float32(peak)
    halves_NW[L:, D] = LEAST
    return halves_NW


def _graph(tables: Mapping[str, NDArray[Any]], sizes: list[int]) -> ModelProto:
    (L, D), (N, W) = tables[VECTORS].shape, tables[HALVES].shape
    nodes = Nodes()
    query_QD = add_taken(nodes, OUTPUT)
    scores_QN = nodes.add("Gemm", _half_query(nodes, query_QD, W - D), HALVES, transB=1)
    _, candidates_QC = best.add_best(nodes, scores_QN, sizes)
    last = nodes.constant(np.array([2]))
    vectors_QCD = nodes.add("Gather", VECTORS, candidates_QC)
    exact_QC = nodes.add("Squeeze", nodes.add("MatMul", vectors_QCD, nodes.add("Unsqueeze", query_QD, last)), last)
    scores_QK, places_QK = nodes.top(exact_QC, COUNT)
    ids_QK = nodes.add("GatherElements", candidates_QC, places_QK, axis=1)
    encoded: tuple[str, Value] = (OUTPUT, (TensorProto.FLOAT, ["Q", D]))
    inputs: dict[str, Value] = {
        COUNT: (TensorProto.INT64, [1]),
        VECTORS: (TensorProto.FLOAT, [L, D]),
        HALVES: (TensorProto.FLOAT16, [N, W]),
    }
    return finished(nodes, encoded, query_QD, best.inputs(sizes) | inputs, ids_QK, scores_QK)


def _half_query(nodes: Nodes, query_QD: str, additional: int) -> str:
    """Queries divided by their largest number, so that half floats hold their scores, and 1 where there is more."""
    peak_Q1 = nodes.add("ReduceMax", nodes.add("Abs", query_QD), nodes.constant(np.array([1])), keepdims=1)
    above_0 = nodes.add("Max", peak_Q1, nodes.constant(np.array(TINY, dtype=np.float32)))
    ends, one = nodes.constant(np.array([0, 0, 0, additional])), nodes.constant(np.array(1, dtype=np.float32))
    return nodes.add("Cast", nodes.add("Pad", nodes.add("Div", query_QD, above_0), ends, one), to=TensorProto.FLOAT16)
