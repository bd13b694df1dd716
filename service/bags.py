"""Queries and bags: what a client asks, and how the encoder sees it.

A *bag* holds the ids of one query with values. Features keep their values; texts become token counts or, for encoders
that read them in order, sequences of tokens; everything after that (weighting, attention, pooling, heads) is inside the
ONNX graph.

Letters: Q queries in a batch, T ids of a bag (of the longest one in a batch).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from service.bundle.manifest import Order
from service.errors import BundleError, InvalidRequest
from service.models.queries import Query

# Token ids are unsigned 32-bit: row * ROW_STRIDE + id is a distinct key for every (row, id).
ROW_STRIDE = 1 << 32


@dataclass(frozen=True, slots=True)
class Bag:
    """One query, ready for the encoder.

    Attributes:
        ids: int64 (T,), distinct and ascending; of a sequence in reading order, repeats included.
        values: float32 (T,), token counts or feature values; of a sequence all 1.
        truncated: whether tokens were cut off.
        words: a text's ids in reading order, repeats included, and what each counts; None where nobody reads them.
    """

    ids: NDArray[np.int64]
    values: NDArray[np.float32]
    truncated: bool = False
    words: tuple[NDArray[np.int64], NDArray[np.float32]] | None = None

    @property
    def reading(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """What word classifiers read: words, or ids and values where these are the same."""
        return (self.ids, self.values) if self.words is None else self.words


class QueryReader(Protocol):
    """Turns queries of one kind into bags; safe to call from several threads."""

    def read(self, queries: Sequence[Query]) -> list[Bag]:
        """One bag a query, in order.

        Raises:
            InvalidRequest: a query is of the wrong kind or has values that cannot be used.
        """
        ...


class TextReader:
    """Texts to token counts or sequences, all texts of a call in one pass of the tokenizer.

    A token counts ``1 + heading_weight`` in a heading, which is the first line of a text that has several, else 1.
    Sequences have no headings.
    """

    def __init__(
        self, tokenizer: Tokenizer, max_tokens: int, order: Order = "bag", heading_weight: float = 0.0
    ) -> None:
        """Take over a tokenizer; it must not be changed afterwards, for threads share it."""
        tokenizer.no_truncation()  # cutting here, not there, lets us count the texts that were cut
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self._max_tokens = max_tokens
        self._order = order
        self._heading_weight = heading_weight

    @classmethod
    def open(cls, path: Path, max_tokens: int, order: Order = "bag", heading_weight: float = 0.0) -> TextReader:
        """Load ``tokenizer.json``.

        Raises:
            BundleError: the tokenizers library does not understand the file, or its special tokens alone are as many
                as a sequence may have.
        """
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises the base class itself
            raise BundleError(f"{path}: expected a tokenizer, found: {error}") from error
        special = tokenizer.num_special_tokens_to_add(is_pair=False)
        if order == "sequence" and max_tokens <= special:
            raise BundleError(f"{path}: expected fewer special tokens than max_tokens {max_tokens}, found {special}")
        return cls(tokenizer, max_tokens, order, heading_weight)

    def read(self, queries: Sequence[Query]) -> list[Bag]:
        """See ``QueryReader``."""
        texts = [self._checked(number, query) for number, query in enumerate(queries)]
        return self._sequences(texts) if self._order == "sequence" else self._bags(texts)

    def _sequences(self, texts: Sequence[str]) -> list[Bag]:
        encodings = self._tokenizer.encode_batch_fast(texts, add_special_tokens=True)
        return [
            Bag(*_in_order(_cut(encoding, self._max_tokens)), len(encoding.ids) > self._max_tokens)
            for encoding in encodings
        ]

    def _bags(self, texts: Sequence[str]) -> list[Bag]:
        # Parts, not texts, are read: a text, or its heading and what follows. Most texts are one line.
        parts: list[str] = []
        headed = [self._heading_weight > 0 and _has_heading(text) for text in texts]
        for text, has_heading in zip(texts, headed, strict=True):
            parts += text.split("\n", 1) if has_heading else [text]
        encodings = iter(self._tokenizer.encode_batch_fast(parts, add_special_tokens=False))
        words, truncated = [], []
        for has_heading in headed:
            heading = next(encodings).ids if has_heading else []
            ids = heading + next(encodings).ids
            counts = np.ones(min(len(ids), self._max_tokens), dtype=np.float32)
            counts[: len(heading)] = 1 + self._heading_weight
            words.append((np.array(ids[: self._max_tokens], dtype=np.int64), counts))
            truncated.append(len(ids) > self._max_tokens)
        bags = _distinct_with_counts(words)
        return [Bag(*bag, cut, word) for bag, cut, word in zip(bags, truncated, words, strict=True)]

    @staticmethod
    def _checked(number: int, query: Query) -> str:
        if not isinstance(query, str):
            raise InvalidRequest(f"query {number}: this model takes texts, found features")
        try:
            query.encode()
        except UnicodeEncodeError as error:
            raise InvalidRequest(f"query {number}: expected Unicode text, found {error.reason}") from error
        return query


class FeatureReader:
    """Sparse vectors to bags, checked against the number of features."""

    def __init__(self, dimension: int) -> None:
        self._dimension = dimension

    def read(self, queries: Sequence[Query]) -> list[Bag]:
        """See ``QueryReader``."""
        return [self._bag(number, query) for number, query in enumerate(queries)]

    def _bag(self, number: int, query: Query) -> Bag:
        if isinstance(query, str):
            raise InvalidRequest(f"query {number}: this model takes features, found a text")
        if len(query.indices) != len(query.values):
            raise InvalidRequest(
                f"query {number}: expected as many values as indices, "
                f"found {len(query.values)} values and {len(query.indices)} indices"
            )
        ids = self._ids(number, query.indices)
        values = _finite_values(number, query.values)
        order = np.argsort(ids)
        ids = ids[order]
        repeated = ids[1:][ids[1:] == ids[:-1]]
        if repeated.size:
            raise InvalidRequest(f"query {number}: expected distinct feature indices, found {repeated[0]} twice")
        return Bag(ids, values[order])

    def _ids(self, number: int, indices: Sequence[int]) -> NDArray[np.int64]:
        smallest, largest = min(indices, default=0), max(indices, default=0)
        if smallest < 0 or largest >= self._dimension:
            found = smallest if smallest < 0 else largest
            raise InvalidRequest(f"query {number}: expected feature indices in 0..{self._dimension - 1}, found {found}")
        return np.array(indices, dtype=np.int64)


def pad(bags: Sequence[Bag]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Stack at least one bag into rectangles; id 0 with value 0 fills them up and contributes nothing.

    Returns:
        ids_QT and values_QT, with T at least 1.
    """
    lengths_Q = np.array([bag.ids.size for bag in bags])
    filled_QT = np.arange(max(1, int(lengths_Q.max()))) < lengths_Q[:, None]
    ids_QT = np.zeros(filled_QT.shape, dtype=np.int64)
    values_QT = np.zeros(filled_QT.shape, dtype=np.float32)
    ids_QT[filled_QT] = np.concatenate([bag.ids for bag in bags])
    values_QT[filled_QT] = np.concatenate([bag.values for bag in bags])
    return ids_QT, values_QT


def _finite_values(number: int, values: Sequence[float]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # an overflow is found as infinity below
        narrow = np.array(values, dtype=np.float64).astype(np.float32)
    faults = np.flatnonzero(~np.isfinite(narrow))
    if faults.size:
        found = values[int(faults[0])]
        raise InvalidRequest(f"query {number}: expected finite 32-bit feature values, found {found}")
    return narrow


def _cut(encoding: Encoding, max_tokens: int) -> list[int]:
    """The first ids of a text, and all special tokens that close it: only text is cut off."""
    ids: list[int] = encoding.ids
    if len(ids) <= max_tokens:
        return ids
    closing = encoding.special_tokens_mask[::-1].index(0)
    return ids[: max_tokens - closing] + ids[len(ids) - closing :]


def _in_order(ids: list[int]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    return np.array(ids, dtype=np.int64), np.ones(len(ids), dtype=np.float32)


def _has_heading(text: str) -> bool:
    """Whether something follows the first line."""
    return bool(text.partition("\n")[2].strip())


def _distinct_with_counts(
    words: Sequence[tuple[NDArray[np.int64], NDArray[np.float32]]],
) -> list[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    rows = np.repeat(np.arange(len(words)), [len(ids) for ids, _ in words])
    flat = np.concatenate([np.empty(0, dtype=np.int64), *(ids for ids, _ in words)])
    weights = np.concatenate([np.empty(0, dtype=np.float32), *(counts for _, counts in words)])
    keys, places = np.unique(rows * ROW_STRIDE + flat, return_inverse=True)
    bounds = np.searchsorted(keys, np.arange(len(words) + 1) * ROW_STRIDE)
    ids, values = keys % ROW_STRIDE, np.bincount(places, weights, len(keys)).astype(np.float32)
    return [(ids[low:high], values[low:high]) for low, high in pairwise(bounds)]
