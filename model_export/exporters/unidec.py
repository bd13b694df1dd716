"""UniDEC: vectors of both heads, concatenated and scaled by the square root of 1/2, or those of one head."""

from __future__ import annotations

from pathlib import Path

from model_export.exporters.search import SearchExporter
from model_export.label_index import WantedIndex
from service.bundle.searching import UnidecSection
from training.methods.base import settled
from training.methods.unidec import Inference, Unidec


class UnidecExporter(SearchExporter[Unidec]):
    """See `Exporter`."""

    def write_tables(self, folder: Path, index: WantedIndex) -> UnidecSection:
        """The index of all label vectors."""
        dimension, section = self.write_index(folder, index)
        heads: Inference = settled(self.model.config.inference)
        return UnidecSection(dimension=dimension, heads=heads, index=section)
