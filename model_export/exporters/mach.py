"""MACH: bucket logits as a graph, the hash table and each repetition's inverted lists as arrays.

Letters: Q queries, T ids of a bag, R repetitions, B buckets, L labels.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.lib.format import open_memmap
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
        write_inverted_lists(folder, buckets_RL, self.model.buckets)
        buckets_LR = np.ascontiguousarray(buckets_RL.T, dtype=layout.bucket_dtype(self.model.buckets))
        np.save(folder / layout.MACH_BUCKETS, buckets_LR)
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


def write_inverted_lists(folder: Path, buckets_RL: NDArray[Any], buckets: int) -> None:
    """Write the labels of every bucket into the bundle's files, one repetition in memory at a time.

    Args:
        folder: takes labels int32 (R, L) by bucket, then row; and offsets int32 (R, B + 1), where each bucket's begin.
        buckets_RL: bucket of each label, in any order of memory.
        buckets: B.
    """
    labels_RL = open_memmap(folder / layout.MACH_INVERTED_LABELS, "w+", np.dtype(np.int32), buckets_RL.shape)
    offsets_RB = np.zeros((len(buckets_RL), buckets + 1), dtype=np.int32)
    for repetition, strided_L in enumerate(buckets_RL):
        buckets_L = np.ascontiguousarray(strided_L)
        labels_RL[repetition] = np.argsort(buckets_L, kind="stable")
        np.cumsum(np.bincount(buckets_L, minlength=buckets), out=offsets_RB[repetition, 1:])
    labels_RL.flush()
    np.save(folder / layout.MACH_INVERTED_OFFSETS, offsets_RB)
