"""Search, as UniDEC and one-vs-all share it: the best labels have the largest inner products with the query."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import numpy as np
from numpy.typing import NDArray

from service.bundle import Bundle, layout
from service.bundle.searching import SearchSection
from service.decoders.base import Scorer, Search
from service.search.codes import Codes
from service.search.exact import ExactSearch
from service.search.leading import LeadingSearch
from service.search.products import products_of_rows
from service.search.topk import TopK

OUTPUT = "query"

# See ``Scorer``: of vectors, labels as a part of all; of codes.
CHEAP_PART = 4
CHEAP_CODES = 1 << 14
MOST_FETCHED = 1 << 12

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]


class VectorScorer:
    """Inner products with whole vectors; see ``Scorer``.

    Args:
        vectors_LD: float32, memory-mapped: a search holds numbers of its own.
    """

    def __init__(self, vectors_LD: Floats) -> None:
        self.cheap_labels = len(vectors_LD) // CHEAP_PART
        self.most_fetched = MOST_FETCHED
        self._vectors_LD = vectors_LD

    def score(self, outputs: Mapping[str, Floats], rows_N: Rows) -> Floats:
        """See ``Scorer``."""
        return products_of_rows(outputs[OUTPUT][0], self._vectors_LD, rows_N)


class CodesScorer:
    """Inner products with the codes that score an index's candidates; see ``Scorer``."""

    cheap_labels = CHEAP_CODES
    most_fetched = MOST_FETCHED

    def __init__(self, codes: Codes) -> None:
        self._codes = codes

    def score(self, outputs: Mapping[str, Floats], rows_N: Rows) -> Floats:
        """See ``Scorer``."""
        scores_N: Floats = self._codes.score(outputs[OUTPUT], rows_N[None])[0]
        return scores_N


class SearchDecoder:
    """A search among the label vectors, exact or in an index."""

    def __init__(self, section: SearchSection, search: Search, scorer: Scorer) -> None:
        self.required_outputs = {OUTPUT: (section.dimension,)}
        self.scorer = scorer
        self._search = search

    @classmethod
    def from_bundle(cls, bundle: Bundle, *, threads: int) -> Self:
        """See ``Decoder``."""
        section = bundle.manifest.method
        assert isinstance(section, SearchSection)
        dimension, size = section.dimension, bundle.manifest.label_count
        if section.index.type == "flat":
            graph, vectors_LD = bundle.file(layout.LABEL_SEARCH), bundle.arrays[layout.LABEL_VECTORS]
            scorer = VectorScorer(vectors_LD)
            if (leading := section.index.leading) is not None:
                tables = vectors_LD, bundle.arrays[layout.LABEL_RESTS]
                return cls(section, LeadingSearch.open(graph, *tables, leading=leading, threads=threads).search, scorer)
            exact = ExactSearch.open(graph, dimension=dimension, size=size, threads=threads)
            return cls(section, exact.search, scorer)
        from service.search.index import Index  # FAISS, which an exact search can do without

        file, codes = bundle.file(layout.LABEL_INDEX), Codes.from_arrays(bundle.arrays)
        index = Index.open(file, section.index, codes, dimension=dimension, threads=threads)
        return cls(section, index.search, CodesScorer(codes))

    def decode(self, outputs: Mapping[str, Floats], k: int) -> TopK:
        """See ``Decoder``."""
        return self._search(outputs[OUTPUT], k)
