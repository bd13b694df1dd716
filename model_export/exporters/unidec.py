"""UniDEC: vectors of both heads, concatenated and scaled by the square root of 1/2, or those of one head.

Letters: Q queries, T ids of a bag, D dimensions of a head, L labels, A labels that were added.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model_export.exporters.search import SearchExporter
from model_export.label_index import WantedIndex
from service.bundle.searching import LabelReading, UnidecSection
from service.search.topk import ranges
from training.data.batches import Bags
from training.methods.base import settled
from training.methods.unidec import ROWS_AT_ONCE, Inference, Unidec
from training.tokens import as_encoded, label_limit, read_words

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
        if self._heads == "classifier" or self.artifact.tokenizer is None:
            return None
        shared = self.model.config.label_projection == "shared"
        limit = label_limit(self.artifact.config.run.texts)
        return LabelReading(max_tokens=limit, output="query" if shared else LABEL_OUTPUT)

    @property
    def outputs(self) -> tuple[str, ...]:
        """See `Exporter`."""
        reading = self.reading
        own = reading is not None and reading.output == LABEL_OUTPUT
        return (self.output, LABEL_OUTPUT) if own else (self.output,)

    def graph(self) -> nn.Module:
        """See `Exporter`."""
        return LabelGraph(self.model) if LABEL_OUTPUT in self.outputs else super().graph()

    def write_tables(self, folder: Path, index: WantedIndex) -> UnidecSection:
        """The index of all label vectors."""
        dimension, section = self.write_index(folder, index)
        return UnidecSection(dimension=dimension, heads=self._heads, reading=self.reading, index=section)

    def label_vectors(self) -> Tensor:
        """See `SearchExporter`."""
        return torch.cat([super().label_vectors(), self.added_vectors])

    def scores(self) -> Tensor:
        """See `Exporter`."""
        queries_QD = self.model.query_vectors(self.model.encoder(self.samples))
        return torch.cat([super().scores(), queries_QD @ self.added_vectors.T], dim=1)

    @cached_property
    @torch.no_grad()
    def added_vectors(self) -> Tensor:
        """Labels that were added, in the space that is searched, float32 (A, D) or (A, 2D).

        A product with a query is the encoder head's cosine: the classifier, which knows nothing of them, has no say.
        """
        parts = [self._encoded(self.added_texts[low:high]) for low, high in ranges(len(self.added_texts), ROWS_AT_ONCE)]
        vectors_AD = torch.cat([torch.empty(0, self.model.config.dimensions), *parts])
        # Of a query whose heads are both searched, the encoder's half is scaled by the square root of 1/2.
        return F.pad(2**0.5 * vectors_AD, (0, vectors_AD.shape[1])) if self._heads == "both" else vectors_AD

    def _encoded(self, texts: Sequence[str]) -> Tensor:
        tokenizer, config = self.artifact.tokenizer, self.artifact.config.run.texts
        assert tokenizer is not None
        words = read_words(tokenizer, texts, config, label_limit(config))
        return self.model.encode_labels(self.model.encoder(Bags.from_csr(as_encoded(words, config))))

    @property
    def _heads(self) -> Inference:
        return settled(self.model.config.inference)
