"""Search, as UniDEC and one-vs-all share it: the best labels have the largest inner products with the query."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import numpy as np
from numpy.typing import NDArray

from service.bundle import Bundle, layout
from service.bundle.searching import SearchSection
from service.decoders.base import Search
from service.search.codes import Codes
from service.search.exact import ExactSearch
from service.search.leading import LeadingSearch
from service.search.topk import TopK

OUTPUT = "query"


class SearchDecoder:
    """A search among the label vectors, exact or in an index."""

    def __init__(self, section: SearchSection, search: Search) -> None:
        self.required_outputs = {OUTPUT: (section.dimension,)}
        self._search = search

    @classmethod
    def from_bundle(cls, bundle: Bundle, *, threads: int) -> Self:
        """See ``Decoder``."""
        section = bundle.manifest.method
        assert isinstance(section, SearchSection)
        dimension, size = section.dimension, bundle.manifest.label_count
        if section.index.type == "flat":
            graph = bundle.file(layout.LABEL_SEARCH)
            if (leading := section.index.leading) is not None:
                tables = bundle.arrays[layout.LABEL_VECTORS], bundle.arrays[layout.LABEL_RESTS]
                return cls(section, LeadingSearch.open(graph, *tables, leading=leading, threads=threads).search)
            return cls(section, ExactSearch.open(graph, dimension=dimension, size=size, threads=threads).search)
        from service.search.index import Index  # FAISS, which an exact search can do without

        file, codes = bundle.file(layout.LABEL_INDEX), Codes.from_arrays(bundle.arrays)
        return cls(section, Index.open(file, section.index, codes, dimension=dimension, threads=threads).search)

    def decode(self, outputs: Mapping[str, NDArray[np.float32]], k: int) -> TopK:
        """See ``Decoder``."""
        return self._search(outputs[OUTPUT], k)
