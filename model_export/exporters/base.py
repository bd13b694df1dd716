"""What an exporter is: the part of a method that turns a trained model into a graph and tables.

Letters: Q queries, T ids of the longest bag, L labels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Generic, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor, nn

from model_export.label_index import WantedIndex
from model_export.reranker import reranked
from service.bundle.manifest import MethodSection
from service.bundle.searching import LabelReading
from training.artifact import Artifact
from training.data.batches import Bags
from training.methods.base import Model
from training.tokens import as_encoded, read_words

# Largest difference between two scores that count as one: absolute while a query's scores stay below 1, relative to
# their largest above. Sums of logits reach hundreds, where float32 has no digits left for an absolute bound.
SCORE_TOLERANCE = 1e-4

TrainedModel = TypeVar("TrainedModel", bound=Model)


@dataclass(frozen=True)
class Reference:
    """What the trained model answers.

    Attributes:
        scores_QL: float32, of every label.
        decided_Q: False where rounding alone decides the answer, so that two correct programs may differ.
    """

    scores_QL: NDArray[np.float32]
    decided_Q: NDArray[np.bool_]


def alike(scores_QL: NDArray[np.float32], reference_QL: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Whether all scores of a query are the reference's up to rounding, bool (Q,): see `SCORE_TOLERANCE`."""
    peaks_Q = np.maximum(1, np.abs(reference_QL).max(axis=1))
    alike_Q: NDArray[np.bool_] = np.abs(scores_QL - reference_QL).max(axis=1) <= SCORE_TOLERANCE * peaks_Q
    return alike_Q


class Exporter(ABC, Generic[TrainedModel]):
    """One method's way into a bundle.

    Attributes:
        output: name of the graph's first output, as the method's decoder asks for it.
        has_index: whether the method's labels are found by an index that the user may choose.
        artifact: what is exported.
        model: its trained model, in evaluation mode.
        added_texts: of labels that come behind the artifact's; only where there is a `reading`.
    """

    output: ClassVar[str]
    has_index: ClassVar[bool] = False

    def __init__(self, artifact: Artifact, added_texts: Sequence[str] = ()) -> None:
        self.artifact = artifact
        self.added_texts = added_texts
        self.model = cast(TrainedModel, artifact.restore())
        for encoder in self.model.own_encoders():
            encoder.simplify()

    @property
    def reading(self) -> LabelReading | None:
        """How the graph reads the text of a label; None where it cannot."""
        return None

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of all that the graph gives."""
        return (self.output,)

    @abstractmethod
    def graph(self) -> nn.Module:
        """The encoder that becomes ONNX: padded ids int64 and values float32, (Q, T) each, to the outputs."""

    @abstractmethod
    def write_tables(self, folder: Path, index: WantedIndex) -> MethodSection:
        """Write the method's files into ``folder``.

        Args:
            folder: the bundle in the making.
            index: what the label index is to be; nothing unless `has_index`.

        Returns:
            What the manifest says about the method.
        """

    @torch.no_grad()
    def reference(self) -> Reference:
        """What the trained model answers to the artifact's samples, slowly and exactly."""
        scores_QL = self.scores().numpy()
        decided_Q = self.decided(scores_QL)
        if self.artifact.reranker is not None:
            scores_QL = reranked(self.artifact.reranker, self.sample_words, scores_QL)
        return Reference(scores_QL, decided_Q)

    def scores(self) -> Tensor:
        """The samples' raw scores of all labels, added ones behind the artifact's, float32 (Q, L)."""
        return self.model.score(self.samples)

    def decided(self, scores_QL: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Which samples have an answer that does not hang on rounding: all of them, where scores are continuous."""
        return np.ones(len(scores_QL), dtype=np.bool_)

    @cached_property
    def samples(self) -> Bags:
        """The artifact's samples for the model."""
        return Bags.from_csr(self.sample_rows)

    @cached_property
    def sample_words(self) -> csr_array:
        """What the re-ranker reads of the artifact's samples: tokens in reading order, or features."""
        tokenizer, texts = self.artifact.tokenizer, self.artifact.config.run.texts
        if tokenizer is None:
            return self.sample_rows
        samples = [sample for sample in self.artifact.samples if isinstance(sample, str)]
        return read_words(tokenizer, samples, texts, texts.max_tokens)

    @cached_property
    def sample_rows(self) -> csr_array:
        """The artifact's samples as training reads them: independent of how the service reads queries."""
        config, texts = self.artifact.config, self.artifact.config.run.texts
        if self.artifact.tokenizer is not None:
            return as_encoded(self.sample_words, texts)
        rows = [sample for sample in self.artifact.samples if not isinstance(sample, str)]
        indptr = np.cumsum([0, *(len(row["indices"]) for row in rows)])
        indices = np.array([index for row in rows for index in row["indices"]], dtype=np.int64)
        values = np.array([value for row in rows for value in row["values"]], dtype=np.float32)
        return csr_array((values, indices, indptr), shape=(len(rows), config.shape.input_width))
