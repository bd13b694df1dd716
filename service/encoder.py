"""From bags to named arrays: the encoder's graph behind one narrow door.

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
from service.errors import EngineFailed
from service.sessions import CUDA_PROVIDER, FLOAT_TENSOR, check_floats, check_inputs, open_session

INPUTS = {"ids": "tensor(int64)", "values": FLOAT_TENSOR}


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
        session = open_session(path, device=device, threads=threads)
        check_inputs(path, session, INPUTS)
        check_floats(path, "output", session.get_outputs(), outputs)
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
