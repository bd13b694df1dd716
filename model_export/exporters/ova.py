"""One-vs-all: the hidden vector with a 1 behind it, and every label's classifier with its bias behind it."""

from __future__ import annotations

from pathlib import Path

from model_export.exporters.search import SearchExporter
from model_export.label_index import WantedIndex
from service.bundle.searching import OvaSection
from training.methods.ova import Ova


class OvaExporter(SearchExporter[Ova]):
    """See `Exporter`."""

    def write_tables(self, folder: Path, index: WantedIndex) -> OvaSection:
        """The index of all classifiers."""
        dimension, section = self.write_index(folder, index)
        return OvaSection(dimension=dimension, index=section)
