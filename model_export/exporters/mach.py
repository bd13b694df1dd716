"""MACH: bucket logits as a graph, the hash table and each repetition's inverted lists as arrays.

Letters: Q queries, T ids of a bag, R repetitions, B buckets, L labels.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model_export.exporters.base import Exporter
from model_export.faiss_index import IndexChoice
from service.bundle import layout
from service.bundle.manifest import HashSection, MachSection
from training import hashing, partition
from training.encoders import Encoder
from training.methods.mach import Mach, MachConfig


class MachGraph(nn.Module):
    """Padded bags to bucket logits float32 (Q, R, B); one encoder and head, or one for each repetition."""

    def __init__(self, model: Mach) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids_QT: Tensor, values_QT: Tensor) -> Tensor:
        """Logits of every bucket."""
        encoders = cast("Iterable[Encoder]", self.model.encoders)
        networks = zip(encoders, self.model.heads, strict=True)
        logits = torch.cat([head(encoder.padded(ids_QT, values_QT)) for encoder, head in networks], dim=1)
        return logits.view(-1, self.model.repetitions, self.model.buckets)


class MachExporter(Exporter[Mach]):
    """See `Exporter`."""

    output = "bucket_logits"

    def graph(self) -> nn.Module:
        """See `Exporter`."""
        return MachGraph(self.model)

    def write_tables(self, folder: Path, index: IndexChoice) -> MachSection:
        """The bucket of every label in its narrowest type, and the labels of every bucket."""
        config = self.model.config
        assert isinstance(config, MachConfig)
        buckets_RL = self.artifact.tables["buckets"]
        labels_RL, offsets_RB = inverted_lists(buckets_RL, self.model.buckets)
        buckets_LR = np.ascontiguousarray(buckets_RL.T, dtype=layout.bucket_dtype(self.model.buckets))
        np.save(folder / layout.MACH_BUCKETS, buckets_LR)
        np.save(folder / layout.MACH_INVERTED_LABELS, labels_RL)
        np.save(folder / layout.MACH_INVERTED_OFFSETS, offsets_RB)
        family, key = origin(config)
        seed = self.artifact.config.run.training.seed
        return MachSection(
            repetitions=self.model.repetitions,
            buckets=self.model.buckets,
            aggregation=config.aggregation,
            activation="softmax" if config.loss == "softmax" else "sigmoid",
            # Validated rather than passed: training could hash in a way that bundles do not know.
            hash=HashSection.model_validate({"family": family, "key": key, "seed": seed}),
        )


def origin(config: MachConfig) -> tuple[str, str]:
    """What put the labels into buckets, and by what key of theirs."""
    if config.repartition_every:
        return partition.FAMILY, partition.KEY
    if config.assignment == "balanced":
        return hashing.BALANCED_FAMILY, hashing.BALANCED_KEY
    return hashing.FAMILY, hashing.KEY


def inverted_lists(buckets_RL: NDArray[Any], buckets: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The labels of every bucket.

    Returns:
        Labels int32 (R, L) by bucket, then row; and offsets int32 (R, B + 1), where each bucket's labels begin.
    """
    labels_RL = np.argsort(buckets_RL, axis=1, kind="stable").astype(np.int32)
    counts_RB = [np.bincount(buckets_L, minlength=buckets) for buckets_L in buckets_RL]
    offsets_RB = np.zeros((len(buckets_RL), buckets + 1), dtype=np.int32)
    np.cumsum(counts_RB, axis=1, out=offsets_RB[:, 1:])
    return labels_RL, offsets_RB
