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
    """What the decoders of all shards have in common, or what they come to; see ``Decoder`` and ``Scorer``.

    Attributes:
        encode: whether shards are asked with what the encoder reads, see `service.sharding.deferred`.
    """

    required_outputs: Mapping[str, tuple[int, ...]]
    exact: bool
    cheap_labels: int
    most_fetched: int
    encode: bool = False

    @classmethod
    def of(cls, decoder: Decoder) -> Traits:
        """Those of one shard."""
        scorer = decoder.scorer
        return cls(decoder.required_outputs, scorer.exact, scorer.cheap_labels, scorer.most_fetched)

    @classmethod
    def joined(cls, parts: Sequence[Traits]) -> Traits:
        """Those of all shards, from those of each."""
        return cls(
            required_outputs=parts[0].required_outputs,
            exact=all(part.exact for part in parts),
            cheap_labels=sum(part.cheap_labels for part in parts),
            most_fetched=min(part.most_fetched for part in parts),
            encode=parts[0].encode,
        )


class Shards(Protocol):
    """All shards of a bundle, by their places in the order of their rows, which they count from 0 each.

    Where shards may be missing, and one is, all of these raise ``ShardUnavailable``; inside of `partial_answers` the
    first two answer for the others, as long as there are any.
    """

    @property
    def traits(self) -> Traits:
        """Of their decoders."""
        ...

    def decode(self, outputs: Outputs, k: int) -> Mapping[int, TopK]:
        """The best labels of each shard, see ``Decoder``."""
        ...

    def nearest(self, embeddings_QC: Floats, count: int) -> Mapping[int, Nearest]:
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
        self.traits = Traits.joined([Traits.of(decoder) for decoder in decoders])
        self._decoders = decoders

    def decode(self, outputs: Outputs, k: int) -> Mapping[int, TopK]:
        """See ``Shards``."""
        return {shard: decoder.decode(outputs, k) for shard, decoder in enumerate(self._decoders)}

    def nearest(self, embeddings_QC: Floats, count: int) -> Mapping[int, Nearest]:
        """See ``Shards``."""
        return {shard: nearest_of(decoder, embeddings_QC, count) for shard, decoder in enumerate(self._decoders)}

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
