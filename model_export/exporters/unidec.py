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
# Labels of each sample by which the scale is measured: those that an answer may hold.
SCALED_BY = 100
# What it would be if the classifier had nothing to say.
LEAST_SCALE = 0.5
TINY = 1e-12


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
        return LabelReading(max_tokens=limit, output="query" if shared else LABEL_OUTPUT, scale=self._scale)

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
        trained_LD = self.model.kept_label_vectors()
        return torch.cat([trained_LD, self.added_vectors]) if self.added_texts else trained_LD

    def scores(self) -> Tensor:
        """See `Exporter`."""
        return torch.cat([super().scores(), self.sample_vectors @ self.added_vectors.T], dim=1)

    @cached_property
    @torch.no_grad()
    def added_vectors(self) -> Tensor:
        """Labels that were added, in the space that is searched, float32 (A, D) or (A, 2D).

        A product with a query is the encoder head's cosine times the scale: the classifier, which knows nothing of
        them, has no say.
        """
        parts = [self._encoded(self.added_texts[low:high]) for low, high in ranges(len(self.added_texts), ROWS_AT_ONCE)]
        vectors_AD = torch.cat([torch.empty(0, self.model.config.dimensions), *parts])
        # Of a query whose heads are both searched, the encoder's half is scaled by the square root of 1/2.
        return (
            F.pad(2**0.5 * self._scale * vectors_AD, (0, vectors_AD.shape[1])) if self._heads == "both" else vectors_AD
        )

    @cached_property
    @torch.no_grad()
    def _scale(self) -> float:
        """What of its encoder's cosine a label's score is on average, among the best of the artifact's samples.

        The encoder's best labels owe their places to luck as well, which the classifier takes out of the mean of both:
        without a scale, new labels would crowd out those that are right.
        """
        if self._heads != "both":
            return 1.0
        queries_QD, labels_LD = self.sample_vectors, self.model.kept_label_vectors()
        half = queries_QD.shape[1] // 2
        scores_QL, cosines_QL = queries_QD @ labels_LD.T, 2 * queries_QD[:, :half] @ labels_LD[:, :half].T
        best_QK = scores_QL.topk(min(SCALED_BY, scores_QL.shape[1])).indices
        scores_QK, cosines_QK = scores_QL.gather(1, best_QK), cosines_QL.gather(1, best_QK)
        share = float((scores_QK * cosines_QK).sum() / cosines_QK.square().sum().clamp(min=TINY))
        # Rounded, so that the same model has the same version on any machine.
        return max(LEAST_SCALE, round(share, 2))

    def _encoded(self, texts: Sequence[str]) -> Tensor:
        tokenizer, config = self.artifact.tokenizer, self.artifact.config.run.texts
        assert tokenizer is not None
        words = read_words(tokenizer, texts, config, label_limit(config))
        return self.model.encode_labels(self.model.encoder(Bags.from_csr(as_encoded(words, config))))

    @property
    def _heads(self) -> Inference:
        return settled(self.model.config.inference)
