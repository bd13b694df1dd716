"""Search, as UniDEC and one-vs-all share it: the best labels have the largest inner products with the query."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import numpy as np
from numpy.typing import NDArray

from service.bundle import Bundle, layout
from service.bundle.manifest import SearchSection
from service.index import Index
from service.topk import TopK

OUTPUT = "query"


class SearchDecoder:
    """A search in the label index."""

    def __init__(self, section: SearchSection, index: Index) -> None:
        self.required_outputs = {OUTPUT: (section.dimension,)}
        self._index = index

    @classmethod
    def from_bundle(cls, bundle: Bundle, *, threads: int) -> Self:
        """See ``Decoder``."""
        section = bundle.manifest.method
        assert isinstance(section, SearchSection)
        index = Index.open(
            bundle.file(layout.LABEL_INDEX),
            kind=section.index.type,
            dimension=section.dimension,
            size=bundle.manifest.label_count,
            threads=threads,
        )
        return cls(section, index)

    def decode(self, outputs: Mapping[str, NDArray[np.float32]], k: int) -> TopK:
        """See ``Decoder``."""
        return self._index.search(outputs[OUTPUT], k)
