"""From bags to named arrays: the ONNX session behind one narrow door.

What a session may do to its host is decided here: how many threads it takes, that idle threads do not spin, that memory
does not grow with every new shape, and that a GPU which was asked for and is not there ends the process.

Letters: Q queries in a batch, T ids of the longest bag.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from service.bags import Bag, pad
from service.errors import BundleError, EngineFailed

CPU_PROVIDER = "CPUExecutionProvider"
CUDA_PROVIDER = "CUDAExecutionProvider"
INPUTS = {"ids": "tensor(int64)", "values": "tensor(float)"}
OUTPUT_TYPE = "tensor(float)"
LOG_ERRORS_ONLY = 3


@dataclass(frozen=True)
class Encoded:
    """What the graph made of a batch.

    Attributes:
        outputs: float32 arrays by name, Q rows each.
        padding_ratio: share of the padded input that is padding.
    """

    outputs: Mapping[str, NDArray[np.float32]]
    padding_ratio: float


class Encoder:
    """An ONNX session with checked inputs and outputs; ``run`` may be called from several threads.

    Attributes:
        device: "cpu" or "cuda", as resolved.
        providers: execution providers, first choice first.
    """

    def __init__(self, session: onnxruntime.InferenceSession, outputs: Sequence[str]) -> None:
        self._session = session
        self._outputs = list(outputs)
        self.providers: list[str] = session.get_providers()
        self.device = "cuda" if self.providers[0] == CUDA_PROVIDER else "cpu"

    @classmethod
    def open(cls, path: Path, outputs: Mapping[str, tuple[int, ...]], *, device: str, threads: int) -> Encoder:
        """Load ``encoder.onnx``.

        Args:
            path: the file.
            outputs: name of each output that is needed, and its shape after Q.
            device: "cpu", "cuda" (an error when it cannot be had) or "auto" (CUDA when it is there).
            threads: of one run, on the CPU.

        Raises:
            BundleError: the graph cannot be loaded, has other inputs or outputs, or CUDA was asked for in vain.
        """
        providers = _providers(device)
        try:
            session = onnxruntime.InferenceSession(str(path), _session_options(threads), providers=providers)
        except Exception as error:  # ONNX Runtime's exceptions share no base class of their own
            reason = str(error).partition("\n")[0]
            raise BundleError(f"{path}: expected a graph that ONNX Runtime loads, found: {reason}") from error
        if device == "cuda" and session.get_providers()[0] != CUDA_PROVIDER:
            raise BundleError(f"{path}: expected to run on {CUDA_PROVIDER}, found {session.get_providers()[0]}")
        _check_inputs(path, session)
        _check_outputs(path, session, outputs)
        return cls(session, list(outputs))

    def run(self, bags: Sequence[Bag]) -> Encoded:
        """Encode a batch of at least one bag.

        Raises:
            EngineFailed: an output is NaN or infinite.
        """
        ids_QT, values_QT = pad(bags)
        arrays = self._session.run(self._outputs, {"ids": ids_QT, "values": values_QT})
        outputs = dict(zip(self._outputs, arrays, strict=True))
        for name, array in outputs.items():
            if not np.isfinite(array).all():
                raise EngineFailed(f"the encoder's output {name} is NaN or infinite for one of {len(bags)} queries")
        tokens = sum(bag.ids.size for bag in bags)
        return Encoded(outputs, padding_ratio=1.0 - tokens / ids_QT.size)


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
    # A memory plan is kept for every shape (Q, T) that was ever seen: without bound under live traffic.
    options.enable_mem_pattern = False
    options.log_severity_level = LOG_ERRORS_ONLY
    return options


def _check_inputs(path: Path, session: onnxruntime.InferenceSession) -> None:
    found = {node.name: node.type for node in session.get_inputs()}
    if found != INPUTS:
        raise BundleError(f"{path}: expected inputs {INPUTS}, found {found}")


def _check_outputs(path: Path, session: onnxruntime.InferenceSession, outputs: Mapping[str, tuple[int, ...]]) -> None:
    nodes = {node.name: node for node in session.get_outputs()}
    for name, shape in outputs.items():
        if name not in nodes:
            raise BundleError(f"{path}: expected an output {name!r}, found {sorted(nodes)}")
        node = nodes[name]
        # Sizes that the graph leaves open are names; those that it fixes must agree.
        fits = len(node.shape) == len(shape) + 1 and all(
            not isinstance(size, int) or size == wanted for size, wanted in zip(node.shape[1:], shape, strict=True)
        )
        if node.type != OUTPUT_TYPE or not fits:
            raise BundleError(
                f"{path}: expected output {name} {OUTPUT_TYPE} {['Q', *shape]}, found {node.type} {node.shape}"
            )
