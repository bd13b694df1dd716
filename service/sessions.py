"""ONNX sessions: what they may do to their host, and whether a graph is the one that is expected.

Decided here: how many threads a session takes, that idle threads do not spin, that memory does not grow with every new
shape, and that a GPU which was asked for and is not there ends the process.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import onnxruntime

from service.errors import BundleError

CPU_PROVIDER = "CPUExecutionProvider"
CUDA_PROVIDER = "CUDAExecutionProvider"
FLOAT_TENSOR = "tensor(float)"
LOG_ERRORS_ONLY = 3


def open_session(path: Path, *, device: str, threads: int) -> onnxruntime.InferenceSession:
    """Load a graph; a session may be called from several threads.

    Args:
        path: the file.
        device: "cpu", "cuda" (an error when it cannot be had) or "auto" (CUDA when it is there).
        threads: of one run, on the CPU.

    Raises:
        BundleError: the graph cannot be loaded, or CUDA was asked for in vain.
    """
    providers = _providers(device)
    try:
        session = onnxruntime.InferenceSession(str(path), _session_options(threads), providers=providers)
    except Exception as error:  # ONNX Runtime's exceptions share no base class of their own
        reason = str(error).partition("\n")[0]
        raise BundleError(f"{path}: expected a graph that ONNX Runtime loads, found: {reason}") from error
    if device == "cuda" and session.get_providers()[0] != CUDA_PROVIDER:
        raise BundleError(f"{path}: expected to run on {CUDA_PROVIDER}, found {session.get_providers()[0]}")
    return session


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


def _providers(device: str) -> list[str]:
    available = onnxruntime.get_available_providers()
    if device == "cpu" or (device == "auto" and CUDA_PROVIDER not in available):
        return [CPU_PROVIDER]
    if CUDA_PROVIDER not in available:
        raise BundleError(f"device cuda: expected {CUDA_PROVIDER} in ONNX Runtime, found {', '.join(available)}")
    onnxruntime.preload_dlls()
    return [CUDA_PROVIDER, CPU_PROVIDER]


def _session_options(threads: int) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    # A memory plan is kept for every shape that was ever seen: without bound under live traffic.
    options.enable_mem_pattern = False
    options.log_severity_level = LOG_ERRORS_ONLY
    return options
