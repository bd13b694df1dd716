"""How much memory GPUs have in use, as NVIDIA's driver tells it.

Six functions of its management library (NVML), which comes with the driver, so that no package has to. It is asked
when somebody scrapes, and costs neither a CUDA context nor memory of the device.
https://docs.nvidia.com/deploy/nvml-api
"""

from __future__ import annotations

import ctypes
from typing import Any, NamedTuple

LIBRARY = "libnvidia-ml.so.1"

_SUCCESS = 0
_UUID_BYTES = 96
_VERSION_BYTES = 80


class _Memory(ctypes.Structure):
    """``nvmlMemory_t``, in bytes."""

    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


class GpuMemory(NamedTuple):
    """Memory of one GPU in bytes: in use by whomever, and all that it has."""

    used_bytes: int
    total_bytes: int


class NvmlError(Exception):
    """The driver's management library is not there, or finds no driver."""


class Nvml:
    """The library, ready to be asked.

    Args:
        library: with NVML's functions, as `ctypes` opens it.

    Raises:
        NvmlError: it finds no driver.
    """

    def __init__(self, library: Any) -> None:
        self._library = library
        if (code := library.nvmlInit_v2()) != _SUCCESS:
            raise NvmlError(f"nvmlInit_v2 answered {code}, expected {_SUCCESS}")

    @classmethod
    def open(cls) -> Nvml:
        """That of this machine.

        Raises:
            NvmlError: there is none.
        """
        try:
            library = ctypes.CDLL(LIBRARY)
        except OSError as error:
            raise NvmlError(f"expected {LIBRARY} of NVIDIA's driver: {error}") from None
        return cls(library)

    def memory(self) -> dict[str, GpuMemory]:
        """Memory by UUID of each GPU that this process may see.

        A GPU that does not answer is left out.
        """
        return dict(filter(None, map(self._of, range(self.count()))))

    def count(self) -> int:
        """How many GPUs this process may see; none where the driver does not answer."""
        count = ctypes.c_uint()
        return count.value if self._library.nvmlDeviceGetCount_v2(ctypes.byref(count)) == _SUCCESS else 0

    def driver_version(self) -> str | None:
        """The driver's version, or None where it does not answer."""
        version = ctypes.create_string_buffer(_VERSION_BYTES)
        code = self._library.nvmlSystemGetDriverVersion(version, ctypes.c_uint(_VERSION_BYTES))
        return version.value.decode() if code == _SUCCESS else None

    def _of(self, index: int) -> tuple[str, GpuMemory] | None:
        library = self._library
        device, uuid, memory = ctypes.c_void_p(), ctypes.create_string_buffer(_UUID_BYTES), _Memory()
        answers = (
            library.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(index), ctypes.byref(device)),
            library.nvmlDeviceGetUUID(device, uuid, ctypes.c_uint(_UUID_BYTES)),
            library.nvmlDeviceGetMemoryInfo(device, ctypes.byref(memory)),
        )
        return None if any(answers) else (uuid.value.decode(), GpuMemory(memory.used, memory.total))
