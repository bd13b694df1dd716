"""What the graphs of resident decoders have in common: some queries of a batch in, their best labels out.

Letters: Q queries, P of them at a time, L labels, K answers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto

from service.errors import EngineFailed
from service.resident.graph import Nodes, ResidentGraph, Value
from service.search.topk import TopK, in_turn, ordered

LOW, HIGH = "low", "high"
# The device leaves open which of equal scores come last; of so many more than are wanted, the first rows are taken.
SPARE = 16


def add_taken(nodes: Nodes, output: str) -> str:
    """Add what takes the queries from LOW to (not including) HIGH from an output of the encoder."""
    return nodes.add("Slice", output, LOW, HIGH, nodes.constant(np.array([0])))


def finished(
    nodes: Nodes, encoded: tuple[str, Value], taken: str, inputs: Mapping[str, Value], ids_QK: str, scores_QK: str
) -> ModelProto:
    """The whole graph.

    Args:
        nodes: all but what is added here.
        encoded: the encoder's output that it reads, (Q, ...).
        taken: what `add_taken` made of that.
        inputs: that it reads beside it.
        ids_QK: where the best labels are.
        scores_QK: where their scores are.
    """
    name, (_, shape) = encoded
    # 0 for each query, or NaN where the encoder gave a number that is infinite or none.
    axes = nodes.constant(np.arange(1, len(shape)))
    sound_Q = nodes.add("ReduceSum", nodes.add("Sub", taken, taken), axes, keepdims=0)
    one_number: Value = (TensorProto.INT64, [1])
    return nodes.model(
        {name: encoded[1], LOW: one_number, HIGH: one_number, **inputs},
        {
            "ids": (ids_QK, (TensorProto.INT64, ["P", "K"])),
            "scores": (scores_QK, (TensorProto.FLOAT, ["P", "K"])),
            "sound": (sound_Q, (TensorProto.FLOAT, ["P"])),
        },
    )


class Answers:
    """What a `finished` graph answers to batches; ``best`` may be called from several threads.

    Args:
        graph: the graph.
        output: name of the encoder's output that it reads.
        counts: its inputs that say how many labels are wanted, by that number.
        label_count: L.
        scores_per_query: how many it computes.
        most_scores: how many it may hold: so many queries are answered at a time.
    """

    def __init__(
        self,
        graph: ResidentGraph,
        output: str,
        counts: Callable[[int], Mapping[str, NDArray[np.int64]]],
        *,
        label_count: int,
        scores_per_query: int,
        most_scores: int,
    ) -> None:
        self._graph = graph
        self._output = output
        self._counts = counts
        self._label_count = label_count
        self._scores_per_query = scores_per_query
        self._most_scores = most_scores

    def best(self, outputs: Mapping[str, Any], k: int) -> TopK:
        """The min(k, L) best labels of each query, best first, ties by row.

        Args:
            outputs: of the encoder, as `OrtValue`s.
            k: at least 1.

        Raises:
            EngineFailed: the output is NaN or infinite.
        """
        k = min(k, self._label_count)
        value, numbers = outputs[self._output], self._counts(min(k + SPARE, self._label_count))

        def answers(low: int, high: int) -> TopK:
            ends = {LOW: np.array([low]), HIGH: np.array([high])}
            ids_PK, scores_PK, sound_P = self._graph.run({self._output: value}, {**ends, **numbers})
            if not np.isfinite(sound_P).all():
                raise EngineFailed(
                    f"the encoder's output {self._output} is NaN or infinite for one of {len(sound_P)} queries"
                )
            return ordered(ids_PK, scores_PK).first(k)

        return in_turn(answers, value.shape()[0], self._scores_per_query, self._most_scores)
