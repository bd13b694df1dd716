"""MACH: bucket logits as a graph, the hash table and inverted lists as arrays.

Letters: Q queries, T ids of a bag, R repetitions, B buckets, L labels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import torch
from numpy.lib import format as npy_format
from numpy.typing import NDArray
from torch import Tensor, nn

from model_export.exporters.base import Exporter
from model_export.label_index import WantedIndex
from service.bundle import layout
from service.bundle.inverted import columns_with_partners, inverted_lists
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

    def write_tables(self, folder: Path, index: WantedIndex) -> MachSection:
        """The bucket of every label in its narrowest type, and the labels of every bucket."""
        config = self.model.config
        assert isinstance(config, MachConfig)
        buckets_RL = self.artifact.tables["buckets"]
        buckets_LR = np.ascontiguousarray(buckets_RL.T, dtype=layout.bucket_dtype(self.model.buckets))
        np.save(folder / layout.MACH_BUCKETS, buckets_LR)
        write_inverted_lists(folder, buckets_LR, self.model.buckets)
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


def write_inverted_lists(folder: Path, buckets_LR: NDArray[Any], buckets: int) -> None:
    """Write the inverted lists into the bundle's files, one repetition in memory at a time.

    Args:
        folder: takes steps and partners, one repetition after the other, and offsets (R, B + 1), see `inverted_lists`.
        buckets_LR: bucket of each label, in the type in which it is stored.
        buckets: B.
    """
    offsets_RB = np.zeros((buckets_LR.shape[1], buckets + 1), dtype=np.int64)
    names = layout.MACH_INVERTED_STEPS, layout.MACH_INVERTED_PARTNERS
    with ExitStack() as stack:
        files = [stack.enter_context(growing(folder / name, buckets_LR.dtype)) for name in names]
        end = 0
        for repetition, columns in enumerate(columns_with_partners(buckets_LR)):
            *lists, offsets_B = inverted_lists(*columns, buckets)
            for file, entries in zip(files, lists, strict=True):
                entries.tofile(file)
            offsets_RB[repetition] = end + offsets_B
            end += int(offsets_B[-1])
    np.save(folder / layout.MACH_INVERTED_OFFSETS, offsets_RB.astype(layout.offset_dtype(end)))


@contextmanager
def growing(path: Path, dtype: np.dtype[Any]) -> Iterator[BinaryIO]:
    """An ``.npy`` file of one dimension to write to; how long it became is put down at the end."""
    with path.open("wb") as file:
        _write_header(file, dtype, 0)
        start = file.tell()
        yield file
        length = (file.tell() - start) // dtype.itemsize
        file.seek(0)
        _write_header(file, dtype, length)  # numpy leaves room for the digits
        assert file.tell() == start


def _write_header(file: BinaryIO, dtype: np.dtype[Any], length: int) -> None:
    header = {"descr": npy_format.dtype_to_descr(dtype), "fortran_order": False, "shape": (length,)}
    npy_format.write_array_header_1_0(file, header)
