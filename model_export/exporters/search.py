"""What UniDEC and one-vs-all share: the query's vector as a graph, those of the labels as a search.

Letters: Q queries, T ids of a bag, D dimensions of a vector, L labels.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from model_export.exact_search import write_exact_search
from model_export.exporters.base import Exporter
from model_export.label_index import WantedIndex, choose_index
from model_export.leading import ANSWERS, choose_leading, write_leading
from service.bundle import layout
from service.bundle.searching import IndexSection
from training.methods.ova import Ova
from training.methods.unidec import Unidec

SearchModel = TypeVar("SearchModel", Unidec, Ova)


class QueryGraph(nn.Module):
    """Padded bags to query vectors float32 (Q, D)."""

    def __init__(self, model: Unidec | Ova) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids_QT: Tensor, values_QT: Tensor) -> Tensor:
        """Query vectors."""
        return self.model.query_vectors(self.model.encoder.padded(ids_QT, values_QT))


class SearchExporter(Exporter[SearchModel]):
    """See `Exporter`."""

    output = "query"
    has_index = True

    def graph(self) -> nn.Module:
        """See `Exporter`."""
        return QueryGraph(self.model)

    @torch.no_grad()
    def write_index(self, folder: Path, wanted: WantedIndex) -> tuple[int, IndexSection]:
        """Write what finds label vectors: their width D, and the index with its recall, measured unless it is exact.

        Raises:
            ExportError: no index is as wanted.
        """
        labels_LD = self.label_vectors().numpy()
        width = labels_LD.shape[1]
        queries_QD = self.sample_vectors.numpy()
        chosen = choose_index(labels_LD, queries_QD, wanted)
        if chosen.index is not None:
            chosen.index.write(folder)
            return width, chosen.section
        leading = choose_leading(labels_LD, queries_QD, self._answers)
        if leading is None:
            write_exact_search(labels_LD, folder / layout.LABEL_VECTORS, folder / layout.LABEL_SEARCH)
            return width, chosen.section
        write_leading(folder, labels_LD, leading)
        return width, chosen.section.model_copy(update={"leading": leading.axes_DC.shape[1]})

    @cached_property
    @torch.no_grad()
    def sample_vectors(self) -> Tensor:
        """The artifact's samples in the space that is searched, float32 (Q, D)."""
        return self.model.query_vectors(self.model.encoder(self.samples))

    def label_vectors(self) -> Tensor:
        """All labels in the space that is searched, added ones behind the artifact's, float32 (L, D)."""
        return self.model.label_vectors()

    @property
    def _answers(self) -> int:
        """Labels that a search is asked for."""
        reranker = self.artifact.reranker
        return ANSWERS if reranker is None else reranker.mixture.candidates
