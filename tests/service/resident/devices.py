"""Where tests of resident decoders run: always on the CPU, and on a GPU where there is one."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from service.bundle.searching import IndexSection, OvaSection
from service.resident.search import ResidentSearch

DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, pytest.mark.onnx_gpu])]


def on(device: str, array: NDArray[np.float32]) -> Any:
    """An array in the memory of a device."""
    return onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), device, 0)


def resident_search(vectors: NDArray[np.float32], device: str) -> ResidentSearch:
    """A search of label vectors."""
    section = OvaSection(dimension=vectors.shape[1], index=IndexSection(type="flat", recall=1.0))
    return ResidentSearch(section, vectors, device)
