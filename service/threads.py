"""How many threads the numerical libraries start; they read it when they are imported."""

from __future__ import annotations

import os

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")


def limit_threads(threads: int) -> None:
    """Give the numerical libraries this many threads each, unless the user has decided otherwise."""
    for name in THREAD_VARIABLES:
        os.environ.setdefault(name, str(threads))
    # OpenMP's threads would spin while they wait for each other, on the processor that the event loop needs.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
