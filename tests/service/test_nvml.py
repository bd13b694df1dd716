from __future__ import annotations

import ctypes
from typing import Any

import pytest

from service import nvml
from service.nvml import GpuMemory, Nvml, NvmlError

LOST = 15  # NVML_ERROR_GPU_IS_LOST
TOTAL_BYTES = 100 << 30


class Library:
    """A stand-in for the driver's library, with the signatures of its C functions."""

    def __init__(self, used_bytes: dict[str, int], *, code: int = 0) -> None:
        self.gpus = list(used_bytes.items())
        self.lost: set[int] = set()
        self._code = code

    def nvmlSystemGetDriverVersion(self, version: Any, length: ctypes.c_uint) -> int:
        version.value = b"580.65.06"[: length.value]
        return self._code

    def nvmlInit_v2(self) -> int:
        return self._code

    def nvmlDeviceGetCount_v2(self, count: Any) -> int:
        ctypes.cast(count, ctypes.POINTER(ctypes.c_uint))[0] = len(self.gpus)
        return self._code

    def nvmlDeviceGetHandleByIndex_v2(self, index: ctypes.c_uint, device: Any) -> int:
        ctypes.cast(device, ctypes.POINTER(ctypes.c_void_p))[0] = index.value + 1
        return LOST if index.value in self.lost else 0

    def nvmlDeviceGetUUID(self, device: ctypes.c_void_p, uuid: Any, length: ctypes.c_uint) -> int:
        assert device.value is not None
        uuid.value = self.gpus[device.value - 1][0].encode()[: length.value]
        return 0

    def nvmlDeviceGetMemoryInfo(self, device: ctypes.c_void_p, memory: Any) -> int:
        assert device.value is not None
        numbers = ctypes.cast(memory, ctypes.POINTER(ctypes.c_ulonglong))  # total, free, used
        numbers[0], numbers[1], numbers[2] = TOTAL_BYTES, 1, self.gpus[device.value - 1][1]
        return 0


def test_memory_is_told_by_gpu() -> None:
    found = Nvml(Library({"GPU-5f1c": 7 << 30, "GPU-93ad": 0})).memory()
    assert found == {"GPU-5f1c": GpuMemory(7 << 30, TOTAL_BYTES), "GPU-93ad": GpuMemory(0, TOTAL_BYTES)}


def test_a_gpu_that_does_not_answer_is_left_out() -> None:
    library = Library({"GPU-5f1c": 1, "GPU-93ad": 2})
    found = Nvml(library)
    library.lost.add(0)
    assert found.memory() == {"GPU-93ad": GpuMemory(2, TOTAL_BYTES)}


def test_the_driver_is_told_and_how_many_gpus_there_are() -> None:
    found = Nvml(Library({"GPU-5f1c": 1, "GPU-93ad": 2}))
    assert (found.driver_version(), found.count()) == ("580.65.06", 2)


def test_a_driver_that_stops_to_answer_tells_nothing() -> None:
    library = Library({"GPU-5f1c": 1})
    found = Nvml(library)
    library._code = LOST
    assert (found.driver_version(), found.count(), found.memory()) == (None, 0, {})


def test_a_library_without_a_driver_is_an_error() -> None:
    with pytest.raises(NvmlError, match="nvmlInit_v2 answered 9, expected 0"):
        Nvml(Library({}, code=9))


def test_a_machine_without_the_library_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml, "LIBRARY", "libnone.so.1")
    with pytest.raises(NvmlError, match=r"expected libnone\.so\.1 of NVIDIA's driver"):
        Nvml.open()
