"""From texts to rows of token ids: as bags (distinct ids with counts) or as sequences (ids in reading order).

Both are rows of one sparse matrix. A sequence keeps order and repeats, each token with the value 1: a CSR matrix that
is not canonical, which slicing, taking rows and stacking leave as it is.

Letters: N texts, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Literal, Protocol

import numpy as np
from scipy.sparse import csr_array
from tokenizers import Encoding, Tokenizer

from training.data.sparse import narrow_csr
from training.vocabulary import summed, tokens_in_order

Order = Literal["bag", "sequence"]


class TextConfig(Protocol):
    """The options that decide how texts become token ids: those of a vocabulary, or of an encoder that has one."""

    @property
    def order(self) -> Order:
        """What the encoder reads."""

    @property
    def max_tokens(self) -> int:
        """Tokens of a point's text beyond which it is cut off."""

    @property
    def max_label_tokens(self) -> int | None:
        """The same for the text of a label; None: as for points."""

    @property
    def heading_weight(self) -> float:
        """What a token counts more in the first line of a text that has several."""

    @property
    def piece_count(self) -> int:
        """Token ids below it are pieces that words are cut into; 0 where tokens are pieces anyway."""

    def tokenizer(self, texts: Iterable[str]) -> Tokenizer:
        """The tokenizer: learned from the texts, which are read once, or one that exists."""


def label_limit(config: TextConfig) -> int:
    """Tokens beyond which a label's text is cut off."""
    return config.max_label_tokens or config.max_tokens


def as_encoded(words: csr_array, config: TextConfig) -> csr_array:
    """What the encoder reads of tokens in reading order."""
    return summed(words) if config.order == "bag" else words


def read_words(tokenizer: Tokenizer, texts: Sequence[str], config: TextConfig, max_tokens: int) -> csr_array:
    """Tokens in reading order with what they count, whatever the encoder reads: float32 CSR (N, V), not canonical."""
    if config.order == "bag":
        return tokens_in_order(tokenizer, texts, max_tokens, config.heading_weight)
    return token_sequences(tokenizer, texts, max_tokens)


def token_sequences(tokenizer: Tokenizer, texts: Sequence[str], max_tokens: int) -> csr_array:
    """Token ids in reading order, between the special tokens that the tokenizer puts around a text.

    Args:
        tokenizer: without truncation and padding of its own.
        texts: N of them.
        max_tokens: special tokens included; more than there are of these.

    Returns:
        float32 CSR (N, V), not canonical: ids as they are read, repeats included, each with the value 1.
    """
    encodings = tokenizer.encode_batch_fast(list(texts), add_special_tokens=True)
    rows = [_cut(encoding, max_tokens) for encoding in encodings]
    indptr = np.cumsum([0, *map(len, rows)], dtype=np.int64)
    ids = np.fromiter(chain.from_iterable(rows), dtype=np.int64, count=int(indptr[-1]))
    width = 1 + max(tokenizer.get_vocab().values())  # ids may have gaps
    return narrow_csr(np.ones(len(ids), dtype=np.float32), ids, indptr, (len(rows), width))


def _cut(encoding: Encoding, max_tokens: int) -> list[int]:
    """The first ids of a text and all special tokens that close it: only text is cut off."""
    ids: list[int] = encoding.ids
    if len(ids) <= max_tokens:
        return ids
    closing = encoding.special_tokens_mask[::-1].index(0)
    return ids[: max_tokens - closing] + ids[len(ids) - closing :]
