"""What word classifiers read of a text beside its tokens: the pieces of whole words, and pairs of neighbours.

A token is a whole word where the vocabulary holds it. Its pieces say what it has in common with other words (of one
stem, or of one compound), and a pair says what its two words mean together: linear classifiers of tokens see neither.

Letters: N texts, V tokens, P pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array
from tokenizers import Tokenizer
from tokenizers.models import WordPiece

from training.data.sparse import narrow_csr
from training.vocabulary import CONTINUATION, UNKNOWN

LEAST_PAIRS = 2  # occurrences below which a pair is not a term
ROWS_AT_ONCE = 2048


@dataclass(frozen=True)
class Terms:
    """Which columns a text's terms have: tokens and pieces their id, pair p column V + p.

    Attributes:
        piece_offsets: int64 (V + 1,), where each token's pieces begin, and the end.
        pieces: int32 ids of the pieces of all tokens that are cut.
        pairs: int64 (P,), rising: left id * V + right id.
    """

    piece_offsets: NDArray[np.int64]
    pieces: NDArray[np.int32]
    pairs: NDArray[np.int64]

    @property
    def width(self) -> int:
        """Number of columns V + P."""
        return len(self.piece_offsets) - 1 + len(self.pairs)

    @classmethod
    def learn(cls, tokenizer: Tokenizer, piece_count: int, most_pairs: int, parts: Sequence[csr_array]) -> Terms:
        """Terms of a tokenizer and of texts.

        Args:
            tokenizer: words that are no pieces have the highest ids.
            piece_count: ids below it are pieces, that words are cut into; 0 for a tokenizer without whole words.
            most_pairs: the most frequent are kept, ties by ids.
            parts: texts as `training.tokens.read_words` gives them.
        """
        vocabulary = parts[0].shape[1]
        offsets, pieces = _cut_words(tokenizer, piece_count, vocabulary)
        return cls(offsets, pieces, _frequent_pairs(parts, vocabulary, most_pairs))

    def count(self, words: csr_array) -> csr_array:
        """The terms of texts, float32 CSR (N, V + P), canonical: what each of them counts.

        Args:
            words: float32 CSR (N, V) as `training.tokens.read_words` gives it.
        """
        starts = range(0, max(1, words.shape[0]), ROWS_AT_ONCE)
        counted = [self._count(csr_array(words[start : start + ROWS_AT_ONCE])) for start in starts]
        indptr = np.concatenate([[0], *(np.diff(part.indptr) for part in counted)]).cumsum()
        ids = np.concatenate([part.indices for part in counted])
        data = np.concatenate([part.data for part in counted])
        return narrow_csr(data, ids, indptr, (words.shape[0], self.width))

    def _count(self, words: csr_array) -> csr_array:
        rows = np.repeat(np.arange(words.shape[0]), np.diff(words.indptr))
        ids, counts = words.indices.astype(np.int64), words.data
        lengths = np.diff(self.piece_offsets)[ids]
        places = np.repeat(self.piece_offsets[ids] - np.cumsum(lengths) + lengths, lengths) + np.arange(lengths.sum())
        keys, joined = _neighbours(words)
        neighbours = np.flatnonzero(joined)
        known = np.searchsorted(self.pairs, keys)
        found = known < len(self.pairs)
        found[found] = self.pairs[known[found]] == keys[found]
        columns = [ids, self.pieces[places], len(self.piece_offsets) - 1 + known[found]]
        values = [counts, np.repeat(counts, lengths), counts[neighbours[found]]]
        owners = [rows, np.repeat(rows, lengths), rows[neighbours[found]]]
        rows_and_columns = tuple(
            np.concatenate(parts, dtype=np.int32, casting="same_kind") for parts in (owners, columns)
        )
        counted = coo_array((np.concatenate(values), rows_and_columns), shape=(words.shape[0], self.width))
        return csr_array(counted.tocsr())


def _cut_words(tokenizer: Tokenizer, piece_count: int, vocabulary: int) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Offsets (V + 1,) and ids of the pieces of each word; a piece has none, nor has a word of one piece."""
    by_id = dict(sorted((id_, token) for token, id_ in tokenizer.get_vocab(with_added_tokens=False).items()))
    lengths = np.zeros(vocabulary, dtype=np.int64)
    pieces: list[int] = []
    if piece_count:
        known = {token: id_ for id_, token in by_id.items() if id_ < piece_count}
        cutter = WordPiece(known, unk_token=UNKNOWN)
        for id_, token in by_id.items():
            if id_ >= piece_count and not token.startswith(CONTINUATION):
                found = [piece.id for piece in cutter.tokenize(token)]
                if len(found) > 1:  # a word too long to be cut is unknown
                    lengths[id_] = len(found)
                    pieces += found
    return np.concatenate([[0], np.cumsum(lengths)]), np.array(pieces, dtype=np.int32)


def _frequent_pairs(parts: Sequence[csr_array], vocabulary: int, most: int) -> NDArray[np.int64]:
    """Keys of the most frequent pairs, rising."""
    if not most:
        return np.empty(0, dtype=np.int64)
    keys = np.concatenate([_neighbours(part)[0] for part in parts])
    keys.sort()  # in place: there are as many as tokens
    firsts = np.flatnonzero(np.append(True, keys[1:] != keys[:-1])[: len(keys)])
    counts = np.diff(firsts, append=len(keys))
    frequent = counts >= LEAST_PAIRS
    found, counts = keys[firsts[frequent]], counts[frequent]
    return np.sort(found[np.argsort(-counts, kind="stable")[:most]])


def _neighbours(words: csr_array) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Keys of all pairs of neighbours, and whether each token but the last is the left one of a pair.

    What ends a heading and what begins the rest are none: they count differently.
    """
    ids = words.indices
    joined = words.data[1:] == words.data[:-1]
    ends = words.indptr[1:-1]
    joined[ends[(ends > 0) & (ends < len(ids))] - 1] = False
    keys = ids[:-1].astype(np.int64)
    keys *= words.shape[1]
    keys += ids[1:]
    return keys[joined], joined
