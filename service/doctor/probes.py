"""What is asked in a process of its own (`child`): each probe is a generator of answers as JSON can hold them."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

# As ONNX Runtime's `preload_dlls` says of each library that it finds nowhere.
FAILED_TO_LOAD = "Failed to load "


def import_all(*names: str) -> Iterator[tuple[bool, str]]:
    """Import libraries, and say of each whether it can be imported, and what of it resolved, or why it cannot."""
    for name in names:
        try:
            answer = True, _describe(importlib.import_module(name))
        except Exception as error:
            answer = False, f"{type(error).__name__}: {error}"
        yield answer


def try_cuda() -> Iterator[Any]:
    """Load CUDA's libraries as a model does, and ask for a device.

    Yields:
        the version that ONNX Runtime was built for, or ""; what could not be loaded; the files that were; why a model
        could not run there, or None.
    """
    import onnxruntime

    yield onnxruntime.cuda_version
    with redirect_stdout(StringIO()) as said:
        onnxruntime.preload_dlls()
    yield [
        line.removeprefix(FAILED_TO_LOAD) for line in said.getvalue().splitlines() if line.startswith(FAILED_TO_LOAD)
    ]
    yield _loaded()

    from service.sessions import fault_of_cuda

    yield fault_of_cuda("fp32")


def find_cache() -> Iterator[str | None]:
    """Where numba keeps the kernels of one of the service's modules, having written there; None: nowhere."""
    from service.search import topk

    kernel: Any = topk._select
    yield kernel.stats.cache_path


def _describe(module: Any) -> str:
    version = str(module.__version__)
    if module.__name__ == "onnxruntime":
        return f"{version}: {', '.join(module.get_available_providers())}"
    if module.__name__ == "faiss":
        return f"{version}: {module.get_compile_options().strip()}"
    return version


def _loaded() -> list[str]:
    """NVIDIA's libraries in this process."""
    maps = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    files = {Path(fields[5]).name for line in maps if len(fields := line.split(maxsplit=5)) == 6}
    return sorted(name for name in files if name.startswith(("libcu", "libnv")) and ".so" in name)
