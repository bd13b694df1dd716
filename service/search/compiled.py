"""Kernels: functions that run without the interpreter and its lock.

In numpy the same work is hundreds of short calls, and after each of them a thread has to win the lock back from the
others: in one process with a busy event loop that took longer than the work itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., object])


# What lets several numbers be added, multiplied or compared at once; infinities stay what they are.
_IN_ANY_ORDER = {"reassoc", "contract", "nsz", "nnan"}


def compiled(kernel: Function) -> Function:
    """Compile at the first call for each type of arguments, and keep the code for the next process."""
    return _kept(kernel)


def inlined(kernel: Function) -> Function:
    """The same for a loop of few steps that others call often: a call counts references to every array it is given."""
    return _kept(kernel, forceinline=True)


def vectorised(kernel: Function) -> Function:
    """As `compiled`, but a loop may sum up, or look for the largest, in any order; its numbers are none of them NaN."""
    return _kept(kernel, fastmath=_IN_ANY_ORDER)


def _kept(kernel: Function, **options: Any) -> Function:
    options |= {"nogil": True, "error_model": "numpy"}
    try:
        return cast(Function, numba.njit(cache=True, **options)(kernel))
    except RuntimeError:  # no folder for it can be written: not this one, nor the user's, nor NUMBA_CACHE_DIR
        return cast(Function, numba.njit(**options)(kernel))
