"""Search, as UniDEC and one-vs-all share it: the best labels have the largest inner products with the query."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Self

import numpy as np
from numpy.typing import NDArray

from service.bundle import Bundle, layout
from service.bundle.searching import OvaSection, SearchSection
from service.decoders.base import Scorer, Search
from service.decoders.parts import BiasParts, HeadParts
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


class SearchScorer(ABC):
    """A product with chosen labels; see ``Scorer``.

    Args:
        section: what dimensions of a vector are.
    """

    def __init__(self, section: SearchSection) -> None:
        self._section = section

    @abstractmethod
    def score(self, outputs: Mapping[str, Floats], rows_N: Rows) -> Floats:
        """See ``Scorer``."""

    def explain(self, outputs: Mapping[str, Floats], rows_N: Rows) -> list[HeadParts] | list[BiasParts]:
        """See ``Scorer``: scores are linear in the query, so its parts have scores that add up."""
        section, dimension = self._section, self._section.dimension
        if isinstance(section, OvaSection):
            parts = self._parts(outputs, rows_N, dimension - 1)
            return [BiasParts(bias, weights) for weights, bias in parts]
        if section.heads == "both":
            return [HeadParts(*shares) for shares in self._parts(outputs, rows_N, dimension // 2)]
        scores = self.score(outputs, rows_N).tolist()
        if section.heads == "classifier":
            return [HeadParts(None, score) for score in scores]
        return [HeadParts(score, None) for score in scores]

    def _parts(self, outputs: Mapping[str, Floats], rows_N: Rows, border: int) -> Iterator[tuple[float, float]]:
        """Scores of a query's dimensions up to a border, and from there on."""
        before, behind = outputs[OUTPUT].copy(), outputs[OUTPUT].copy()
        before[:, border:] = behind[:, :border] = 0
        scores = (self.score({OUTPUT: query_1D}, rows_N).tolist() for query_1D in (before, behind))
        return zip(*scores, strict=True)


class VectorScorer(SearchScorer):
    """Inner products with whole vectors; see ``Scorer``.

    Args:
        section: what dimensions of a vector are.
        vectors_LD: float32, memory-mapped: a search holds numbers of its own.
    """

    def __init__(self, section: SearchSection, vectors_LD: Floats) -> None:
        super().__init__(section)
        self.exact = True
        self.cheap_labels = len(vectors_LD) // CHEAP_PART
        self.most_fetched = MOST_FETCHED
        self._vectors_LD = vectors_LD

    def score(self, outputs: Mapping[str, Floats], rows_N: Rows) -> Floats:
        """See ``Scorer``."""
        return products_of_rows(outputs[OUTPUT][0], self._vectors_LD, rows_N)


class CodesScorer(SearchScorer):
    """Inner products with the codes that score an index's candidates; see ``Scorer``."""

    exact = False
    cheap_labels = CHEAP_CODES
    most_fetched = MOST_FETCHED

    def __init__(self, section: SearchSection, codes: Codes) -> None:
        super().__init__(section)
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
            scorer = VectorScorer(section, vectors_LD)
            if (leading := section.index.leading) is not None:
                tables = vectors_LD, bundle.arrays[layout.LABEL_RESTS]
                return cls(section, LeadingSearch.open(graph, *tables, leading=leading, threads=threads).search, scorer)
            exact = ExactSearch.open(graph, dimension=dimension, size=size, threads=threads)
            return cls(section, exact.search, scorer)
        from service.search.index import Index  # FAISS, which an exact search can do without

        file, codes = bundle.file(layout.LABEL_INDEX), Codes.from_arrays(bundle.arrays)
        index = Index.open(file, section.index, codes, dimension=dimension, threads=threads)
        return cls(section, index.search, CodesScorer(section, codes))

    def decode(self, outputs: Mapping[str, Floats], k: int) -> TopK:
        """See ``Decoder``."""
        return self._search(outputs[OUTPUT], k)
