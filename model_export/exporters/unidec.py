"""UniDEC: the query in the concatenated space as a graph, the labels there as a FAISS index.

Letters: Q queries, T ids of a bag, D dimensions of one head (vectors have 2D), L labels.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from model_export.exporters.base import Exporter
from model_export.faiss_index import IndexChoice, build_index, chosen_type, write_index
from service.bundle import layout
from service.bundle.manifest import IndexSection, UnidecSection
from training.methods.unidec import Unidec


class UnidecGraph(nn.Module):
    """Padded bags to query vectors float32 (Q, 2D): two halves of unit length, scaled by the square root of 1/2."""

    def __init__(self, model: Unidec) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids_QT: Tensor, values_QT: Tensor) -> Tensor:
        """Query vectors."""
        return self.model.query_vectors(self.model.encoder.padded(ids_QT, values_QT))


class UnidecExporter(Exporter[Unidec]):
    """See `Exporter`."""

    output = "query"
    has_index = True

    def graph(self) -> nn.Module:
        """See `Exporter`."""
        return UnidecGraph(self.model)

    @torch.no_grad()
    def write_tables(self, folder: Path, index: IndexChoice) -> UnidecSection:
        """The index of all label vectors, with its recall measured on the samples."""
        labels_LD = self.model.label_vectors().numpy()
        queries_QD = self.model.query_vectors(self.model.encoder(self.samples)).numpy()
        kind = chosen_type(index, len(labels_LD))
        built, recall = build_index(labels_LD, queries_QD, kind)
        write_index(built, folder / layout.UNIDEC_INDEX)
        return UnidecSection(dimension=labels_LD.shape[1], index=IndexSection(type=kind, recall=recall))
