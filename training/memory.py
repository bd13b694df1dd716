"""What a process holds in memory, as the system counts it."""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path

STATUS = Path("/proc/self/status")
RESET = Path("/proc/self/clear_refs")
KIB = 1024


def use_huge_pages() -> None:
    """Have torch ask for huge pages, where the system has them; call before torch allocates anything.

    A step's large tensors then cost fewer page faults, and what is freed leaves fewer holes: ten steps of MACH on the
    embedded sample held 480 MiB beyond the libraries instead of 606.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def return_freed() -> None:
    """Give back what was freed: glibc keeps blocks of up to 32 MiB, of which later ones of other sizes use little."""
    library = ctypes.CDLL(None)
    if hasattr(library, "malloc_trim"):
        library.malloc_trim(0)


def resident_bytes() -> int:
    """Memory of this process as of now; where the system does not tell, its peak so far."""
    return _status_bytes("VmRSS") if STATUS.exists() else peak_bytes()


def peak_bytes() -> int:
    """The most memory this process has held so far.

    On Linux not `getrusage`, whose figure a process inherits from the one that started it.
    """
    if STATUS.exists():
        return _status_bytes("VmHWM")
    return _unix_bytes(resource.RUSAGE_SELF)


def children_peak_bytes() -> int:
    """The most memory that any process held which this one started and waited for; 0 without any."""
    return _unix_bytes(resource.RUSAGE_CHILDREN)


def forget_peak() -> None:
    """Count the peak from here on, where the system allows it."""
    with suppress(OSError):
        RESET.write_text("5", encoding="ascii")


@cache
def load_libraries() -> None:
    """Bring the libraries to where a first epoch would bring them: compiler imported, kernels and threads in memory.

    All this is the same for every run, and no part of what its data and model need. Once for a process.
    """
    import numpy as np
    import torch
    from scipy.sparse import csr_array
    from torch import nn
    from torch.nn import functional as F
    from torch.optim import AdamW

    model = nn.Sequential(nn.EmbeddingBag(64, 64, mode="sum", include_last_offset=True), nn.Linear(64, 64))
    optimiser = AdamW(model.parameters(), fused=True)
    embedded = model[0](torch.arange(64), torch.arange(0, 65, 4), per_sample_weights=torch.ones(64))
    logits = model[1](F.dropout(embedded.relu(), 0.5))
    loss = F.binary_cross_entropy_with_logits(logits, torch.zeros(16, 64)) + logits.logsumexp(1).mean()
    loss.backward()
    optimiser.step()
    logits.detach().topk(5).values.sort(stable=True)
    # Large enough for the linear algebra to make all of its buffers.
    torch.linalg.svd(torch.linalg.qr(torch.rand(4096, 256, dtype=torch.float64)).Q, full_matrices=False)
    products = csr_array(np.eye(64, dtype=np.float32)) @ np.ones((64, 64), dtype=np.float32)
    np.lexsort((np.partition(products, 5, axis=1)[0], products[0]))


def _unix_bytes(who: int) -> int:
    peak = resource.getrusage(who).ru_maxrss
    return peak if sys.platform == "darwin" else peak * KIB


def _status_bytes(name: str) -> int:
    for line in STATUS.read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * KIB
    raise OSError(f"{STATUS}: expected a line {name}, found none")
