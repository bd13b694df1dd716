"""UniDEC: vectors of both heads, concatenated and scaled by the square root of 1/2, or those of one head.

Letters: Q queries, T ids of a bag, D dimensions of a head.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from torch import Tensor, nn

from model_export.exporters.search import SearchExporter
from model_export.label_index import WantedIndex
from service.bundle.searching import LabelReading, UnidecSection
from training.methods.base import settled
from training.methods.unidec import Inference, Unidec
from training.tokens import label_limit

LABEL_OUTPUT: Final = "label"


class LabelGraph(nn.Module):
    """Padded bags to query vectors, and to the dual encoder's float32 (Q, D) of the same texts as labels."""

    def __init__(self, model: Unidec) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids_QT: Tensor, values_QT: Tensor) -> tuple[Tensor, Tensor]:
        """Query vectors and label vectors."""
        hidden_QD = self.model.encoder.padded(ids_QT, values_QT)
        return self.model.query_vectors(hidden_QD), self.model.encode_labels(hidden_QD)


class UnidecExporter(SearchExporter[Unidec]):
    """See `Exporter`."""

    @property
    def reading(self) -> LabelReading | None:
        """See `Exporter`: the dual encoder reads, where it answers and there are texts."""
        run = self.artifact.config.run
        if self._heads == "classifier" or self.artifact.tokenizer is None:
            return None
        shared = self.model.config.label_projection == "shared"
        return LabelReading(max_tokens=label_limit(run.texts), output="query" if shared else LABEL_OUTPUT)

    @property
    def outputs(self) -> tuple[str, ...]:
        """See `Exporter`."""
        reading = self.reading
        return (self.output,) if reading is None or reading.output == self.output else (self.output, reading.output)

    def graph(self) -> nn.Module:
        """See `Exporter`."""
        return LabelGraph(self.model) if LABEL_OUTPUT in self.outputs else super().graph()

    def write_tables(self, folder: Path, index: WantedIndex) -> UnidecSection:
        """The index of all label vectors."""
        dimension, section = self.write_index(folder, index)
        return UnidecSection(dimension=dimension, heads=self._heads, reading=self.reading, index=section)

    @property
    def _heads(self) -> Inference:
        return settled(self.model.config.inference)
