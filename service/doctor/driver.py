"""NVIDIA's driver: its version, the CUDA that it speaks, and how many GPUs it shows this process."""

from __future__ import annotations

import ctypes
from typing import NamedTuple

from service.nvml import Nvml, NvmlError

LIBRARY = "libcuda.so.1"


class Driver(NamedTuple):
    """A driver.

    Attributes:
        version: its own, where NVML is there to tell it.
        cuda: the newest CUDA that it speaks: major, minor.
        gpus: that it shows, where NVML is there to tell.
    """

    version: str | None
    cuda: tuple[int, int]
    gpus: int | None

    def __str__(self) -> str:
        """As a person reads it."""
        gpus = "" if self.gpus is None else f", GPUs: {self.gpus}"
        return f"{self.version or 'of unknown version'}, speaks CUDA {self.cuda[0]}.{self.cuda[1]}{gpus}"


class DriverError(Exception):
    """There is no driver, or it does not answer."""


def find_driver() -> Driver:
    """The driver of this machine, without a CUDA context.

    CUDA's version is that of libcuda, which a container may bring newer than the driver's own.

    Raises:
        DriverError: there is none.
    """
    try:
        nvml: Nvml | None = Nvml.open()
    except NvmlError:  # containers may be given libcuda alone
        nvml = None
    cuda = ctypes.c_int()
    try:
        code = ctypes.CDLL(LIBRARY).cuDriverGetVersion(ctypes.byref(cuda))
    except OSError as error:
        raise DriverError(f"expected {LIBRARY} of NVIDIA's driver: {error}") from None
    if code:
        raise DriverError(f"{LIBRARY}: cuDriverGetVersion answered {code}, expected 0")
    version, gpus = (nvml.driver_version(), nvml.count()) if nvml else (None, None)
    return Driver(version, (cuda.value // 1000, cuda.value % 1000 // 10), gpus)
