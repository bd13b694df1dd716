"""MACH on the device that encodes: every label's score is gathered and summed, then the best are taken.

A GPU reads the whole table faster than it would follow lists. Sums are taken in the order of `decoders.buckets`.

Letters: Q queries, R repetitions, B buckets, L labels, N of them with those that fill the table up, K answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto

from service.bundle import Bundle, layout
from service.bundle.manifest import Aggregation, MachSection
from service.decoders.base import Scorer
from service.decoders.buckets import Buckets
from service.decoders.mach import OUTPUT, MachScorer
from service.resident import best
from service.resident.answers import Answers, add_taken, finished
from service.resident.graph import Nodes, ResidentGraph, Value
from service.search.topk import TopK

# Those that are sums of what each bucket brings.
SUMMED: tuple[Aggregation, ...] = ("sum_logits", "mean_prob", "unbiased")
# Terms that one kernel of ONNX Runtime adds up.
TERMS = 8
# Scores at a time: 9 arrays of 128 MB are alive at once, and more queries at a time cost no less each.
MOST_SCORES = 1 << 25


class ResidentMach:
    """The bucket table on the device; see ``Decoder``, but that outputs are `OrtValue`s."""

    def __init__(self, section: MachSection, buckets_LR: Buckets, device: str) -> None:
        self.required_outputs: Mapping[str, tuple[int, ...]] = {OUTPUT: (section.repetitions, section.buckets)}
        self.scorer: Scorer = MachScorer(section, buckets_LR)
        sizes = best.sizes(len(buckets_LR))
        tables = _places(buckets_LR, section, sizes[0])
        self._answers = Answers(
            ResidentGraph(_graph(section, list(tables), sizes), tables, device),
            OUTPUT,
            partial(best.counts, sizes),
            label_count=len(buckets_LR),
            scores_per_query=sizes[0],
            most_scores=MOST_SCORES,
        )

    @classmethod
    def from_bundle(cls, bundle: Bundle, section: MachSection, device: str) -> ResidentMach:
        """Copy the bucket table to the device."""
        return cls(section, bundle.arrays[layout.MACH_BUCKETS], device)

    def decode(self, outputs: Mapping[str, Any], k: int) -> TopK:
        """See ``Decoder``."""
        return self._answers.best(outputs, k)


def _places(buckets_LR: Buckets, section: MachSection, size: int) -> dict[str, NDArray[np.int32]]:
    """Of each repetition, where every label's score lies among all R * B; past the last for who is no label."""
    R, B = section.repetitions, section.buckets
    tables = {}
    for repetition in range(R):
        places_N = np.full(size, R * B, dtype=np.int32)
        places_N[: len(buckets_LR)] = buckets_LR[:, repetition]
        places_N[: len(buckets_LR)] += repetition * B
        tables[f"places.{repetition}"] = places_N
    return tables


def _graph(section: MachSection, tables: list[str], sizes: list[int]) -> ModelProto:
    R, B = section.repetitions, section.buckets
    nodes = Nodes()
    logits_QRB = add_taken(nodes, OUTPUT)
    brought_QRB = _brought(nodes, logits_QRB, section)
    flat = nodes.add("Reshape", brought_QRB, nodes.constant(np.array([0, R * B])))
    nothing = nodes.constant(np.array(-np.inf, dtype=np.float32))
    scores = nodes.add("Pad", flat, nodes.constant(np.array([0, 0, 0, 1])), nothing)
    ends = [0, *range(TERMS, R, TERMS - 1), R]
    sums: list[str] = []
    for low, high in pairwise(ends):
        gathered = [nodes.add("Gather", scores, table, axis=1) for table in tables[low:high]]
        sums = [nodes.add("Sum", *sums, *gathered)]
    scores_QK, ids_QK = best.add_best(nodes, sums[0], sizes)
    encoded: tuple[str, Value] = (OUTPUT, (TensorProto.FLOAT, ["Q", R, B]))
    places: dict[str, Value] = {table: (TensorProto.INT32, [sizes[0]]) for table in tables}
    return finished(nodes, encoded, logits_QRB, best.inputs(sizes) | places, ids_QK, scores_QK)


def _brought(nodes: Nodes, logits: str, section: MachSection) -> str:
    """What each bucket brings to the sum; see `decoders.mach.bucket_scores`."""
    if section.aggregation == "sum_logits":
        return logits
    R, B = section.repetitions, section.buckets
    softmax = section.activation == "softmax"
    shares = nodes.add("Softmax", logits, axis=2) if softmax else nodes.add("Sigmoid", logits)
    if section.aggregation == "mean_prob":
        return nodes.add("Div", shares, nodes.constant(np.array(R, dtype=np.float32)))
    beyond_chance = nodes.add("Sub", shares, nodes.constant(np.array(1 / B, dtype=np.float32)))
    return nodes.add("Mul", beyond_chance, nodes.constant(np.array(B / (B - 1) / R, dtype=np.float32)))
