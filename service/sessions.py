"""ONNX sessions: what they may do to their host, and whether a graph is the one that is expected.

Decided here: how many threads a session takes, that idle threads do not spin, that memory does not grow with every new
shape, that a GPU which was asked for and is not there ends the process, and that nothing is quietly computed beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from service.bundle.manifest import Precision
from service.errors import BundleError

CPU_PROVIDER = "CPUExecutionProvider"
CUDA_PROVIDER = "CUDAExecutionProvider"
FLOAT_TENSOR = "tensor(float)"
LOG_ERRORS_ONLY = 3

# TF32 would round inputs of products to 10 bits: scores were off by 2e-3 of the largest, and no faster up to 32 rows.
# Doubling the arena at each growth would take memory that no batch needs.
CUDA_OPTIONS = {"use_tf32": "0", "arena_extend_strategy": "kSameAsRequested"}
PROVIDERS: dict[str, list[Any]] = {
    "cpu": [CPU_PROVIDER],
    "cuda": [(CUDA_PROVIDER, CUDA_OPTIONS), CPU_PROVIDER],
}
# What ONNX Runtime leaves to the CPU on purpose: their inputs are a few numbers that are there already.
OF_SHAPES = {"Cast", "Concat", "Gather", "Range", "Shape", "Slice", "Squeeze", "Unsqueeze"}


def resolve_device(device: str, precision: Precision) -> str:
    """Where a bundle's graphs run: "cpu" or "cuda".

    Args:
        device: "cpu", "cuda" (an error when it cannot be had) or "auto" (CUDA where it can be had and serves).
        precision: of the bundle's weights; products of 8-bit numbers are computed by the CPU alone.

    Raises:
        BundleError: CUDA was asked for in vain.
    """
    if device == "cpu":
        return device
    fault = fault_of_cuda(precision)
    if fault is None:
        return "cuda"
    if device == "cuda":
        raise BundleError(f"device cuda: {fault}")
    return "cpu"


def fault_of_cuda(precision: Precision) -> str | None:
    """Why a bundle cannot run on CUDA, or None when it can."""
    available = onnxruntime.get_available_providers()
    if CUDA_PROVIDER not in available:
        return f"expected {CUDA_PROVIDER} in ONNX Runtime, found {', '.join(available)}"
    if precision == "int8":
        return "expected weights in fp32 or fp16, found int8, whose products run on the CPU alone"
    onnxruntime.preload_dlls()
    try:
        onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros(1, dtype=np.float32), "cuda", 0)
    except Exception as error:  # as in `open_session`
        return f"expected a device that CUDA can use, found: {str(error).partition(chr(10))[0]}"
    return None


def open_session(path: Path, *, device: str, threads: int) -> onnxruntime.InferenceSession:
    """Load a graph from a file; a session may be called from several threads.

    Args:
        path: the file.
        device: "cpu" or "cuda".
        threads: of one run, on the CPU.

    Raises:
        BundleError: the graph cannot be loaded, or not all of it runs on the device.
    """
    try:
        session = make_session(str(path), device=device, threads=threads)
    except Exception as error:  # ONNX Runtime's exceptions share no base class of their own
        reason = str(error).partition("\n")[0]
        raise BundleError(f"{path}: expected a graph that ONNX Runtime loads, found: {reason}") from error
    if device == "cuda":
        _check_placement(path, session)
    return session


def make_session(graph: str | bytes, *, device: str, threads: int) -> onnxruntime.InferenceSession:
    """A session of a file's or a serialised graph; see `open_session`, which also checks it."""
    return onnxruntime.InferenceSession(graph, _session_options(threads), providers=PROVIDERS[device])


def check_inputs(path: Path, session: onnxruntime.InferenceSession, types: Mapping[str, str]) -> None:
    """Check that the graph has exactly the inputs of ``types``.

    Raises:
        BundleError: it has others.
    """
    found = {node.name: node.type for node in session.get_inputs()}
    if found != types:
        raise BundleError(f"{path}: expected inputs {types}, found {found}")


def check_floats(
    path: Path, kind: str, found: Sequence[onnxruntime.NodeArg], shapes: Mapping[str, tuple[int, ...]]
) -> None:
    """Check that some inputs or outputs are there, and float32 (Q, ...).

    Args:
        path: the graph's file.
        kind: "input" or "output".
        found: what the graph has of this kind.
        shapes: name of each that is needed, and its shape after Q.

    Raises:
        BundleError: one is missing or of another type or shape.
    """
    nodes = {node.name: node for node in found}
    for name, shape in shapes.items():
        if name not in nodes:
            raise BundleError(f"{path}: expected an {kind} {name!r}, found {sorted(nodes)}")
        node = nodes[name]
        # Sizes that the graph leaves open are names; those that it fixes must agree.
        fits = len(node.shape) == len(shape) + 1 and all(
            not isinstance(size, int) or size == wanted for size, wanted in zip(node.shape[1:], shape, strict=True)
        )
        if node.type != FLOAT_TENSOR or not fits:
            raise BundleError(
                f"{path}: expected {kind} {name} {FLOAT_TENSOR} {['Q', *shape]}, found {node.type} {node.shape}"
            )


def _check_placement(path: Path, session: onnxruntime.InferenceSession) -> None:
    """Check that the CPU has nothing to do but the arithmetic of shapes.

    ONNX Runtime gives to the CPU what CUDA has no kernel for, and copies back and forth at every such node.
    """
    if session.get_providers()[0] != CUDA_PROVIDER:
        raise BundleError(f"{path}: expected to run on {CUDA_PROVIDER}, found {session.get_providers()[0]}")
    elsewhere = {
        node.op_type
        for part in session.get_provider_graph_assignment_info()
        if part.ep_name != CUDA_PROVIDER
        for node in part.get_nodes()
    }
    if slow := elsewhere - OF_SHAPES:
        raise BundleError(f"{path}: expected a graph that runs on CUDA, found {', '.join(sorted(slow))} on the CPU")


def _session_options(threads: int) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    # A memory plan is kept for every shape that was ever seen: without bound under live traffic.
    options.enable_mem_pattern = False
    options.log_severity_level = LOG_ERRORS_ONLY
    return options
