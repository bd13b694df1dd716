"""A data folder made ready for training: every text a row of token ids, every label list a row of a sparse matrix.

Texts are streamed: first past the tokenizer's word counts, then into rows of token ids, a chunk at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, vstack
from tokenizers import Tokenizer

from training.data.batches import Rows
from training.data.card import Card
from training.data.points import Point
from training.data.records import Source
from training.data.sparse import narrow_csr
from training.tokens import TextConfig, as_encoded, label_limit, read_words
from training.vocabulary import CHUNK_TEXTS, chunks

MOST_VALIDATION_ROWS = 10_000
SAMPLES = 64

Query = str | dict[str, list[float]]


class UnsuitableData(Exception):
    """The data is well-formed, but lacks what the run needs."""


@dataclass(frozen=True)
class Dataset:
    """What the training methods read.

    Attributes:
        card: facts about the data.
        label_ids: public id of each label row.
        label_texts: text of each label row, or None.
        label_counts: int64 (L,), training points of each label, validation rows included.
        counted_rows: training points that were counted, validation rows included.
        train: rows that the weights are fitted to.
        points: int64 (N,), which row of the split "trn" each of these is; -1 - l for the text of label l.
        validation: rows that choose the best epoch.
        label_bags: label texts as the points' are, float32 CSR (L, V), or None.
        label_words: the same in reading order; None where there are no texts, or nobody asked.
        validation_drawn: whether the validation rows were drawn from the training rows, for want of a split.
        tokenizer: for texts; None for features.
        samples: a few validation inputs as a user would send them.
    """

    card: Card
    label_ids: list[str]
    label_texts: list[str] | None
    label_counts: NDArray[np.int64]
    counted_rows: int
    train: Rows
    points: NDArray[np.int64]
    validation: Rows
    label_bags: csr_array | None
    tokenizer: Tokenizer | None
    samples: list[Query]
    label_words: csr_array | None = None
    validation_drawn: bool = False

    @property
    def label_count(self) -> int:
        """Number of labels L."""
        return len(self.label_ids)

    @property
    def input_width(self) -> int:
        """Number of tokens or features V."""
        return int(self.train.inputs.shape[1])


def load_dataset(
    source: Source,
    texts: TextConfig,
    *,
    validation_fraction: float | None,
    seed: int,
    in_order: bool = False,
    least_held: int = 0,
) -> Dataset:
    """Read a source, make its tokenizer, and set validation rows apart.

    The validation rows are the source's ``dev`` split or, without one, a seeded share of the training rows.

    Args:
        source: the data folder.
        texts: how texts become token ids.
        validation_fraction: share of the training rows; None: a twentieth, or more where that is less than
            ``least_held``.
        seed: draws them.
        in_order: keep the tokens of texts in reading order too, which takes about as much memory again.
        least_held: so many rows, but no more than a fifth of all.

    Raises:
        DataError: the files are not as their layout promises.
        UnsuitableData: there is no training or no validation row, or features where the encoder reads texts.
    """
    tokenizer = None
    if source.card.input == "text":
        tokenizer = texts.tokenizer(_texts(source))
    elif texts.order == "sequence":
        raise UnsuitableData(
            f"{source.card.name}: a transformer reads texts, and this data set has features; use a bag encoder"
        )
    rows = read_rows(source, "trn", tokenizer, texts, in_order=in_order)
    label_counts = np.bincount(rows.targets.indices, minlength=rows.targets.shape[1])
    if "dev" in source.splits():
        train, held = np.arange(len(rows)), None
        validation = read_rows(source, "dev", tokenizer, texts, in_order=in_order)
        samples = _samples(source, "dev", None)
    else:
        count = _held_count(len(rows), validation_fraction, least_held)
        held = np.sort(np.random.default_rng(seed).choice(len(rows), size=count, replace=False))
        train = np.setdiff1d(np.arange(len(rows)), held, assume_unique=True)
        validation, samples = rows.take(held), _samples(source, "trn", held)
    if not len(train) or not len(validation):
        found = f"{len(train)} and {len(validation)}"
        raise UnsuitableData(f"{source.card.name}: expected training and validation rows, found {found}")
    label_bags = label_words = None
    if tokenizer is not None and source.label_texts is not None:
        label_words = _stack(
            read_words(tokenizer, chunk, texts, label_limit(texts)) for chunk in chunks(source.label_texts)
        )
        label_bags = as_encoded(label_words, texts)
    return Dataset(
        card=source.card,
        label_ids=source.label_ids,
        label_texts=source.label_texts,
        label_counts=label_counts,
        counted_rows=len(rows),
        train=rows if held is None else rows.take(train),
        points=train,
        validation=validation,
        label_bags=label_bags,
        tokenizer=tokenizer,
        samples=samples,
        label_words=label_words if in_order else None,
        validation_drawn=held is not None,
    )


def read_rows(
    source: Source, split: str, tokenizer: Tokenizer | None, texts: TextConfig, *, in_order: bool = False
) -> Rows:
    """One split of a source as sparse rows; without a tokenizer, of features.

    Raises:
        DataError: as for `Source.points`.
    """
    parts = _Parts(source.card, tokenizer, texts, in_order)
    for point in source.points(split):
        parts.add(point)
    return parts.finish()


@dataclass
class _Parts:
    """Collects points into sparse parts; holds the texts of one chunk only."""

    card: Card
    tokenizer: Tokenizer | None
    texts: TextConfig
    in_order: bool
    points: list[Point] = field(default_factory=list)
    inputs: list[csr_array] = field(default_factory=list)
    words: list[csr_array] = field(default_factory=list)
    targets: list[csr_array] = field(default_factory=list)

    def add(self, point: Point) -> None:
        self.points.append(point)
        if len(self.points) == CHUNK_TEXTS:
            self._close_chunk()

    def finish(self) -> Rows:
        self._close_chunk()
        return Rows(_stack(self.inputs), _stack(self.targets), _stack(self.words) if self.words else None)

    def _close_chunk(self) -> None:
        self._encode()
        labels = [point.labels for point in self.points]
        self.targets.append(_csr(labels, [point.relevances for point in self.points], self.card.label_count))
        self.points.clear()

    def _encode(self) -> None:
        if self.tokenizer is not None:
            points = [point.text or "" for point in self.points]
            words = read_words(self.tokenizer, points, self.texts, self.texts.max_tokens)
            self.inputs.append(as_encoded(words, self.texts))
            if self.in_order and self.texts.order == "bag":  # a sequence is in order as it is
                self.words.append(words)
            return
        indices = [point.indices for point in self.points if point.indices is not None]
        values = [point.values for point in self.points if point.values is not None]
        self.inputs.append(_csr(indices, values, self.card.feature_count or 0))


def _csr(indices: list[NDArray[np.int32]], values: list[NDArray[np.float32]], width: int) -> csr_array:
    indptr = np.concatenate([[0], np.cumsum([len(row) for row in indices], dtype=np.int64)])
    flat = np.concatenate(indices) if indices else np.empty(0, np.int32)
    data = np.concatenate(values) if values else np.empty(0, np.float32)
    return narrow_csr(data, flat, indptr, (len(indices), width))


def _stack(parts: Iterable[csr_array]) -> csr_array:
    return csr_array(vstack(list(parts), format="csr"))


def _texts(source: Source) -> Iterator[str]:
    yield from (point.text or "" for point in source.points("trn"))
    yield from source.label_texts or ()


def _held_count(rows: int, fraction: float | None, least: int) -> int:
    wanted = max(rows / 20, min(least, rows / 5)) if fraction is None else rows * fraction
    return min(max(1, round(wanted)), MOST_VALIDATION_ROWS)


def _samples(source: Source, split: str, rows: NDArray[np.int64] | None) -> list[Query]:
    wanted = set(rows[:SAMPLES].tolist()) if rows is not None else set(range(SAMPLES))
    samples: list[Query] = []
    for row, point in enumerate(source.points(split)):
        if row in wanted:
            samples.append(_query(point))
            if len(samples) == len(wanted):
                break
    return samples


def _query(point: Point) -> Query:
    if point.indices is None or point.values is None:
        return point.text or ""
    return {"indices": point.indices.tolist(), "values": point.values.tolist()}
