"""A search with more labels behind the bundle's: what a decoder of label vectors becomes when labels are added.

Letters: Q queries, D dimensions, L labels of the bundle, A added ones, N rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.bundle.searching import SearchSection
from service.decoders.base import Decoder, Scorer
from service.decoders.parts import Parts
from service.decoders.search import OUTPUT, VectorScorer
from service.search.products import inner_products
from service.search.topk import TopK, merge, select

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]


class WidenedScorer:
    """Scores of a bundle's labels and of added ones; see ``Scorer``."""

    def __init__(self, inner: Scorer, added: VectorScorer, label_count: int) -> None:
        self.exact = inner.exact
        self.cheap_labels = inner.cheap_labels
        self.most_fetched = inner.most_fetched
        self._inner = inner
        self._added = added
        self._label_count = label_count

    def score(self, outputs: Mapping[str, Floats], rows_N: Rows) -> Floats:
        """See ``Scorer``."""
        own_N, added_N = self._parted(rows_N)
        parts = [
            scorer.score(outputs, rows) for scorer, rows in ((self._inner, own_N), (self._added, added_N)) if len(rows)
        ]
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.float32)

    def explain(self, outputs: Mapping[str, Floats], rows_N: Rows) -> Sequence[Parts]:
        """See ``Scorer``."""
        own_N, added_N = self._parted(rows_N)
        parts: list[Parts] = []
        for scorer, rows in ((self._inner, own_N), (self._added, added_N)):
            parts += scorer.explain(outputs, rows) if len(rows) else ()
        return parts

    def _parted(self, rows_N: Rows) -> tuple[Rows, Rows]:
        """Rows of the bundle, and those of added labels counted from the first of them."""
        border = int(np.searchsorted(rows_N, self._label_count))
        return rows_N[:border], rows_N[border:] - self._label_count


class WidenedDecoder:
    """The best of a bundle's labels and of added ones, exact where the bundle's decoder is; see ``Decoder``.

    Args:
        inner: of the bundle.
        section: of its manifest.
        vectors_AD: of added labels.
        label_count: L.
    """

    def __init__(self, inner: Decoder, section: SearchSection, vectors_AD: Floats, label_count: int) -> None:
        self.required_outputs = inner.required_outputs
        self.scorer = WidenedScorer(inner.scorer, VectorScorer(section, vectors_AD), label_count)
        self._inner = inner
        self._vectors_AD = vectors_AD
        self._label_count = label_count

    def decode(self, outputs: Mapping[str, Any], k: int) -> TopK:
        """See ``Decoder``."""
        found = self._inner.decode(outputs, k)
        queries = outputs[OUTPUT]
        queries_QD = queries if isinstance(queries, np.ndarray) else queries.numpy()  # from a device's memory
        # Each product by itself, so that company changes no score.
        best = select(inner_products(queries_QD, self._vectors_AD), k)
        return merge([found, TopK(best.ids_QK + self._label_count, best.scores_QK)], k)
