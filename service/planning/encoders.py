"""The encoder's weights: how many there are, and how many of them a query is multiplied with.

Letters: Q queries, V vocabulary, D dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from service.planning.workload import Workload

FLOAT_BYTES = 4


class Architecture(NamedTuple):
    """Sizes of a BERT."""

    vocabulary: int
    positions: int
    width: int
    layers: int
    inner: int


# all-MiniLM-L6-v2, the transformer that training starts from unless told otherwise.
MINILM = Architecture(vocabulary=30_522, positions=512, width=384, layers=6, inner=1536)
SEGMENTS = 2


@dataclass(frozen=True)
class Weights:
    """Numbers in ``encoder.onnx``.

    Attributes:
        table: in what is looked up.
        body: of a transformer, multiplied with every token.
        dense: multiplied with every query.
    """

    table: int
    body: int
    dense: int

    @property
    def count(self) -> int:
        """All of them."""
        return self.table + self.body + self.dense


def weights_of(workload: Workload) -> Weights:
    """The encoder's weights by its sizes; ``encoder_bytes`` changes nothing."""
    is_bag = workload.encoder == "bag"
    table, body = _bag_table(workload) if is_bag else _transformer_table(MINILM), 0 if is_bag else _body(MINILM)
    units = workload.widths if is_bag else (MINILM.width,)
    layers = [*units] if workload.method == "ova" else [*units, workload.outputs]
    return Weights(table, body, sum((left + 1) * right for left, right in pairwise(layers)))


def encoder_bytes(workload: Workload) -> int:
    """Size of ``encoder.onnx`` without the few kilobytes that its nodes take."""
    if workload.encoder_bytes is not None:
        return workload.encoder_bytes
    return FLOAT_BYTES * weights_of(workload).count


def _bag_table(workload: Workload) -> int:
    """Embeddings, their bias, and the weight of each token."""
    return (workload.vocabulary + 1) * workload.widths[0] + workload.vocabulary


def _transformer_table(sizes: Architecture) -> int:
    return (sizes.vocabulary + sizes.positions + SEGMENTS) * sizes.width


def _body(sizes: Architecture) -> int:
    """Attention, the layers behind it, and all normalisations."""
    attention = 4 * (sizes.width + 1) * sizes.width
    behind = (sizes.width + 1) * sizes.inner + (sizes.inner + 1) * sizes.width
    return sizes.layers * (attention + behind + 4 * sizes.width) + 2 * sizes.width
