"""Memory of the two processes of a pod, and of a GPU."""

from __future__ import annotations

from dataclasses import dataclass

from service.bundle import layout
from service.planning.constants import Constants, Files, Work
from service.planning.encoders import encoder_bytes
from service.planning.sizes import file_bytes
from service.planning.work import held_index_bytes
from service.planning.workload import Workload

# Of a GPU: bytes of a number of label vectors (a float, and half a float to choose candidates by), and of a label's
# bucket; and what sums of scores take while they are made (`resident.mach`).
VECTOR_BYTES, BUCKET_BYTES = 6, 4
SUMS_BYTES = 9 * (4 << 25)
# Read when a process starts, and not mapped, or not whole.
READ_FILES = {layout.ENCODER, layout.TOKENIZER, layout.LABEL_SEARCH, layout.DECLARE_ROW_SEARCH, layout.LABEL_INDEX}


@dataclass(frozen=True)
class Footprint:
    """Bytes in memory.

    Attributes:
        model_private: of the model's process, that are no file's.
        model_mapped: of the bundle's files in it: the system may take them back, and must read them again then.
        model_code: of libraries in it.
        http_private: of the process that speaks HTTP.
        http_code: of libraries in it.
        gpu: on the GPU; 0 without one.
    """

    model_private: int
    model_mapped: int
    model_code: int
    http_private: int
    http_code: int
    gpu: int

    @property
    def total(self) -> int:
        """Of a pod, without the GPU's."""
        return self.model_private + self.model_mapped + self.model_code + self.http_private + self.http_code


def mapped_bytes(workload: Workload, files: Files) -> int:
    """Bytes of the files that stay mapped: arrays and the labels' records, all read when a bundle is verified."""
    sizes = file_bytes(workload, files)
    mapped = sum(size for name, size in sizes.items() if name not in READ_FILES)
    return mapped + sizes.get(layout.LABEL_INDEX, 0) - held_index_bytes(workload, files)


def footprint_of(workload: Workload, work: Work, constants: Constants, *, on_gpu: bool) -> Footprint:
    """What a pod with this model holds."""
    memory = constants.memory
    return Footprint(
        model_private=round(memory.model.of(work)),
        model_mapped=mapped_bytes(workload, constants.files),
        model_code=round(memory.model_code),
        http_private=round(memory.http),
        http_code=round(memory.http_code),
        gpu=_gpu_bytes(workload) if on_gpu else 0,
    )


def is_resident(workload: Workload) -> bool:
    """Whether labels are found on the GPU as well; else by the CPU, from what the GPU encodes."""
    return workload.method == "mach" or (workload.method != "declare" and workload.index == "flat")


def _gpu_bytes(workload: Workload) -> int:
    if not is_resident(workload):
        return encoder_bytes(workload)
    if workload.method == "mach":
        return encoder_bytes(workload) + BUCKET_BYTES * workload.labels * workload.repetitions + SUMS_BYTES
    return encoder_bytes(workload) + VECTOR_BYTES * workload.labels * workload.dimension
