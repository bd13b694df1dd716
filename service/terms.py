"""What word classifiers read of a text beside its tokens: pieces of tokens, and pairs of neighbours.

Training says why: see ``training/terms.py``; a test holds this code to that.

Letters: Q queries, V tokens, P pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.bags import ROW_STRIDE, Bag
from service.errors import EngineFailed


@dataclass(frozen=True)
class Rows:
    """Sparse rows, one a query, with distinct rising ids.

    Attributes:
        starts: int64 (Q + 1,), where each row begins, and the end.
        ids: int64.
        values: float32.
    """

    starts: NDArray[np.int64]
    ids: NDArray[np.int64]
    values: NDArray[np.float32]


@dataclass(frozen=True)
class Terms:
    """Which ids terms have: tokens and pieces their own, pair p the id V + p.

    Attributes:
        piece_offsets: integers (V + 1,), where each token's pieces begin, and the end.
        pieces: int32 ids.
        pairs: int64 (P,), rising: left id * V + right id.
    """

    piece_offsets: NDArray[np.integer]
    pieces: NDArray[np.int32]
    pairs: NDArray[np.int64]

    @classmethod
    def of_tokens(cls, vocabulary: int) -> Terms:
        """Tokens alone."""
        return cls(np.zeros(vocabulary + 1, dtype=np.int64), np.empty(0, np.int32), np.empty(0, np.int64))

    def count(self, bags: Sequence[Bag]) -> Rows:
        """What every term of a batch counts.

        Raises:
            EngineFailed: the tokenizer gave a token that no classifier can know.
        """
        vocabulary = len(self.piece_offsets) - 1
        read = [bag.reading for bag in bags]
        rows = np.repeat(np.arange(len(bags)), [len(ids) for ids, _ in read])
        ids = np.concatenate([ids for ids, _ in read])
        counts = np.concatenate([counts for _, counts in read])
        if ids.size and (largest := int(ids.max())) >= vocabulary:
            raise EngineFailed(f"expected token ids below {vocabulary}, as word classifiers know, found {largest}")
        starts, lengths = self.piece_offsets[ids], self.piece_offsets[ids + 1] - self.piece_offsets[ids]
        places = np.repeat(starts - np.cumsum(lengths) + lengths, lengths) + np.arange(lengths.sum())
        left, pairs = self._known_pairs(rows, ids, counts)
        owners = np.concatenate([rows, np.repeat(rows, lengths), rows[left]])
        terms = np.concatenate([ids, self.pieces[places], vocabulary + pairs])
        values = np.concatenate([counts, np.repeat(counts, lengths), counts[left]])
        keys, where = np.unique(owners * ROW_STRIDE + terms, return_inverse=True)
        bounds = np.searchsorted(keys, np.arange(len(bags) + 1) * ROW_STRIDE)
        return Rows(bounds, keys % ROW_STRIDE, np.bincount(where, values, len(keys)).astype(np.float32))

    def _known_pairs(
        self, rows: NDArray[np.int64], ids: NDArray[np.int64], counts: NDArray[np.float32]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Places of left tokens, and numbers of the pairs that they begin."""
        # What ends a heading and what begins the rest are no pair: they count differently.
        left = np.flatnonzero((rows[1:] == rows[:-1]) & (counts[1:] == counts[:-1]))
        keys = ids[left] * (len(self.piece_offsets) - 1) + ids[left + 1]
        numbers = np.searchsorted(self.pairs, keys)
        known = numbers < len(self.pairs)
        known[known] = self.pairs[numbers[known]] == keys[known]
        return left[known], numbers[known]
