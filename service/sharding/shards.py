"""What asks all shards of a bundle at once, wherever they are.

Letters: Q queries, D dimensions, N rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from service.decoders.base import Decoder
from service.decoders.declare import DeclareDecoder
from service.decoders.parts import Parts
from service.decoders.rows import Nearest
from service.search.topk import TopK

Floats = NDArray[np.float32]
Outputs = Mapping[str, Floats]
RowNumbers = NDArray[np.int64]


@dataclass(frozen=True)
class Traits:
    """What the decoders of all shards have in common, or what they come to; see ``Decoder`` and ``Scorer``."""

    required_outputs: Mapping[str, tuple[int, ...]]
    exact: bool
    cheap_labels: int
    most_fetched: int

    @classmethod
    def of(cls, decoders: Sequence[Decoder]) -> Traits:
        """Those of some shards."""
        scorers = [decoder.scorer for decoder in decoders]
        return cls(
            required_outputs=decoders[0].required_outputs,
            exact=all(scorer.exact for scorer in scorers),
            cheap_labels=sum(scorer.cheap_labels for scorer in scorers),
            most_fetched=min(scorer.most_fetched for scorer in scorers),
        )


class Shards(Protocol):
    """All shards of a bundle, in the order of their rows, which they count from 0 each."""

    @property
    def traits(self) -> Traits:
        """Of their decoders."""
        ...

    def decode(self, outputs: Outputs, k: int) -> list[TopK]:
        """The best labels of each shard, see ``Decoder``."""
        ...

    def nearest(self, embeddings_QC: Floats, count: int) -> list[Nearest]:
        """The nearest training rows of each shard of DECLARE, with votes of these alone, see ``Rows``."""
        ...

    def score(self, shard: int, outputs: Outputs, rows_N: RowNumbers) -> Floats:
        """Scores of some labels of one shard, see ``Scorer``."""
        ...

    def explain(self, shard: int, outputs: Outputs, rows_N: RowNumbers) -> Sequence[Parts]:
        """What scores of one shard are made of, see ``Scorer``."""
        ...


class LocalShards:
    """Shards in this process, asked one after the other; see ``Shards``.

    Args:
        decoders: of each.
    """

    def __init__(self, decoders: Sequence[Decoder]) -> None:
        self.traits = Traits.of(decoders)
        self._decoders = decoders

    def decode(self, outputs: Outputs, k: int) -> list[TopK]:
        """See ``Shards``."""
        return [decoder.decode(outputs, k) for decoder in self._decoders]

    def nearest(self, embeddings_QC: Floats, count: int) -> list[Nearest]:
        """See ``Shards``."""
        return [nearest_of(decoder, embeddings_QC, count) for decoder in self._decoders]

    def score(self, shard: int, outputs: Outputs, rows_N: RowNumbers) -> Floats:
        """See ``Shards``."""
        return self._decoders[shard].scorer.score(outputs, rows_N)

    def explain(self, shard: int, outputs: Outputs, rows_N: RowNumbers) -> Sequence[Parts]:
        """See ``Shards``."""
        return self._decoders[shard].scorer.explain(outputs, rows_N)


def nearest_of(decoder: Decoder, embeddings_QC: Floats, count: int) -> Nearest:
    """What one shard of DECLARE answers to ``Shards.nearest``."""
    assert isinstance(decoder, DeclareDecoder)
    return decoder.rows.nearest(embeddings_QC, count).alone()
