"""UniDEC: the labels whose vectors have the largest inner products with the query's.

Both halves of every vector (dual encoder and classifier) are normalised and scaled by sqrt(1/2) before the bundle is
written and inside the graph, so a score is the mean of two cosines.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from service.bundle import Bundle, layout
from service.bundle.manifest import UnidecSection
from service.index import Index
from service.topk import TopK

OUTPUT = "query"


class UnidecDecoder:
    """A search in the label index."""

    def __init__(self, section: UnidecSection, index: Index) -> None:
        self.required_outputs = {OUTPUT: (section.dimension,)}
        self._index = index

    @classmethod
    def from_bundle(cls, bundle: Bundle, *, threads: int) -> UnidecDecoder:
        """See ``Decoder``."""
        section = bundle.manifest.method
        assert isinstance(section, UnidecSection)
        index = Index.open(
            bundle.file(layout.UNIDEC_INDEX),
            kind=section.index.type,
            dimension=section.dimension,
            size=bundle.manifest.label_count,
            threads=threads,
        )
        return cls(section, index)

    def decode(self, outputs: Mapping[str, NDArray[np.float32]], k: int) -> TopK:
        """See ``Decoder``."""
        return self._index.search(outputs[OUTPUT], k)
