"""Vectors of labels from their texts, for labels that are added while a bundle is served.

A label is searched by the dual encoder alone: the classifier has never seen it. Where both heads are served, its vector
has nothing in the classifier's half, and is so long that its score is the encoder's cosine times a scale, which export
has measured (`LabelReading`), in place of the mean of two cosines.

Letters: N labels, D dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.bags import TextReader
from service.bundle import Bundle, layout
from service.bundle.manifest import Manifest, TextInput
from service.bundle.searching import LabelReading, UnidecSection
from service.encoder import Encoder, QueryEncoder
from service.errors import EngineFailed

TINY = 1e-12
TEXTS_AT_ONCE = 32

# Why each method's labels have no vectors that a text would make.
LEARNED = {
    "mach": "MACH finds labels by buckets that are learned together",
    "declare": "DECLARE finds labels by the training rows that have them",
    "ova": "each label has a classifier that is learned",
    "unidec": "its classifier alone is served, which has learned a vector for each label",
}


@dataclass(frozen=True)
class LabelEncoder:
    """A bundle's dual encoder, for label texts; may be called from several threads."""

    reader: TextReader
    encoder: Encoder
    reading: LabelReading
    both_heads: bool

    @classmethod
    def of(cls, bundle: Bundle, encoder: QueryEncoder) -> LabelEncoder | None:
        """That of a bundle; None where it cannot read label texts, see `why_none`."""
        queries, method = bundle.manifest.input, bundle.manifest.method
        if not isinstance(method, UnidecSection) or method.reading is None or not isinstance(queries, TextInput):
            return None
        if not isinstance(encoder, Encoder):  # shards have it: of MACH alone
            return None
        limit = method.reading.max_tokens
        reader = TextReader.open(bundle.file(layout.TOKENIZER), limit, queries.order, queries.heading_weight)
        return cls(reader, encoder, method.reading, both_heads=method.heads == "both")

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors in the space that is searched, (N, D).

        Args:
            texts: of labels, at least one.

        Raises:
            EngineFailed: the graph's numbers for one of them are not finite.
        """
        bags = self.reader.read(texts)
        parts = [
            self.encoder.vectors(bags[start : start + TEXTS_AT_ONCE], self.reading.output)
            for start in range(0, len(bags), TEXTS_AT_ONCE)
        ]
        vectors_ND = np.concatenate(parts)
        if not np.isfinite(vectors_ND).all():
            raise EngineFailed("the encoder's numbers for the text of a label are NaN or infinite")
        if self.both_heads and self.reading.output == "query":
            vectors_ND = vectors_ND[:, : vectors_ND.shape[1] // 2]
        lengths_N1 = np.linalg.norm(vectors_ND, axis=1, keepdims=True)
        scaled_ND = self.reading.scale * vectors_ND / np.maximum(TINY, lengths_N1)
        if self.both_heads:
            # A query's half is shorter than 1 by the same factor.
            scaled_ND = np.concatenate([np.sqrt(2) * scaled_ND, np.zeros_like(scaled_ND)], axis=1)
        return np.ascontiguousarray(scaled_ND, dtype=np.float32)


def why_none(manifest: Manifest) -> str:
    """Why a bundle without label encoder cannot take new labels, in words."""
    method = manifest.method
    if isinstance(method, UnidecSection) and method.heads != "classifier":
        return f"{manifest.name} was exported before label texts could be read: export it again"
    return f"{manifest.name} cannot take new labels: {LEARNED[method.name]}; train it with them"
