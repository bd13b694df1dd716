"""Decoders of sharded bundles, equal to those of whole ones.

Shards of MACH, UniDEC and one-vs-all hold labels: their best labels are merged. Shards of DECLARE hold training rows,
and a vote needs the nearest of all: these are merged first, and then vote as they would in one bundle.

Letters: N rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from service.bundle import Bundle
from service.bundle.manifest import DeclareSection
from service.bundle.shards import ShardEntry
from service.decoders.base import Decoder, Scorer
from service.decoders.declare import DeclareDecoder
from service.decoders.parts import Parts
from service.decoders.rows import Nearest, merged
from service.search.topk import TopK, merge
from service.sharding.shards import Floats, RowNumbers, Shards


def decoder_of(bundle: Bundle, shards: Shards) -> Decoder:
    """The decoder of a bundle that names shards.

    Args:
        bundle: verified.
        shards: those that it names.
    """
    manifest = bundle.manifest
    if isinstance(manifest.method, DeclareSection):
        rows = ShardedRows(shards, manifest.shards, manifest.label_count)
        return DeclareDecoder(manifest.method, rows, bundle.row_texts)
    return ShardedDecoder(shards, manifest.shards)


class ShardedDecoder:
    """The best labels of all shards; see ``Decoder``.

    Args:
        shards: of labels.
        entries: which labels each has.
    """

    def __init__(self, shards: Shards, entries: Sequence[ShardEntry]) -> None:
        self.required_outputs = shards.traits.required_outputs
        self.scorer: Scorer = ShardedScorer(shards, entries)
        self._shards = shards
        self._entries = entries

    def decode(self, outputs: Mapping[str, Floats], k: int) -> TopK:
        """See ``Decoder``."""
        found = self._shards.decode(outputs, k)
        return merge([TopK(top.ids_QK + self._entries[shard].first, top.scores_QK) for shard, top in found.items()], k)


class ShardedScorer:
    """Asks the shards that have the labels; see ``Scorer``."""

    def __init__(self, shards: Shards, entries: Sequence[ShardEntry]) -> None:
        traits = shards.traits
        self.exact, self.cheap_labels, self.most_fetched = traits.exact, traits.cheap_labels, traits.most_fetched
        self._shards = shards
        self._firsts = np.array([entry.first for entry in entries])

    def score(self, outputs: Mapping[str, Floats], rows_N: RowNumbers) -> Floats:
        """See ``Scorer``."""
        parts = [self._shards.score(shard, outputs, own_N) for shard, own_N in self._parted(rows_N)]
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.float32)

    def explain(self, outputs: Mapping[str, Floats], rows_N: RowNumbers) -> list[Parts]:
        """See ``Scorer``; labels come in any order."""
        order_N = np.argsort(rows_N, kind="stable")
        explained: dict[int, Parts] = {}
        for shard, own_N in self._parted(rows_N[order_N]):
            parts = self._shards.explain(shard, outputs, own_N)
            explained |= zip((own_N + self._firsts[shard]).tolist(), parts, strict=True)
        return [explained[row] for row in rows_N.tolist()]

    def _parted(self, rows_N: NDArray[np.int64]) -> Iterator[tuple[int, RowNumbers]]:
        """Shards that have some of the rows, which rise, and their own numbers of them."""
        borders = np.searchsorted(rows_N, self._firsts)
        for shard, own_N in enumerate(np.split(rows_N, borders[1:])):
            if len(own_N):
                yield shard, own_N - self._firsts[shard]


class ShardedRows:
    """Training rows of all shards of DECLARE; see ``Rows``.

    Args:
        shards: of rows.
        entries: which rows each has.
        label_count: L.
    """

    def __init__(self, shards: Shards, entries: Sequence[ShardEntry], label_count: int) -> None:
        self.label_count = label_count
        self._shards = shards
        self._firsts = [entry.first for entry in entries]

    def nearest(self, embeddings_QC: Floats, count: int) -> Nearest:
        """See ``Rows``."""
        found = self._shards.nearest(embeddings_QC, count)
        return merged(list(found.values()), [self._firsts[shard] for shard in found], count)
