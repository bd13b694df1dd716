"""Kernels: functions that run without the interpreter and its lock.

In numpy the same work is hundreds of short calls, and after each of them a thread has to win the lock back from the
others: in one process with a busy event loop that took longer than the work itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., object])


def compiled(kernel: Function) -> Function:
    """Compile at the first call for each type of arguments, and keep the code for the next process."""
    try:
        return cast(Function, numba.njit(nogil=True, error_model="numpy", cache=True)(kernel))
    except RuntimeError:  # no folder for it can be written: not this one, nor the user's, nor NUMBA_CACHE_DIR
        return cast(Function, numba.njit(nogil=True, error_model="numpy")(kernel))
