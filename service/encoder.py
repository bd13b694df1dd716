"""From bags to named arrays: the encoder's graph behind one narrow door.

Outputs are handed to the decoder where it reads them: as arrays, or left in the memory of the device that made them.

Letters: Q queries in a batch, T ids of the longest bag.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from service.bags import Bag, pad
from service.errors import EngineFailed
from service.sessions import FLOAT_TENSOR, check_floats, check_inputs, open_session

INPUTS = {"ids": "tensor(int64)", "values": FLOAT_TENSOR}


@dataclass(frozen=True)
class Encoded:
    """What the graph made of a batch.

    Attributes:
        outputs: float32 by name, Q rows each: arrays, or `OrtValue`s that stay where they were computed.
        padding_ratio: share of the padded input that is padding.
    """

    outputs: Mapping[str, Any]
    padding_ratio: float


class Encoder:
    """An ONNX session with checked inputs and outputs; ``run`` may be called from several threads.

    Attributes:
        device: "cpu" or "cuda".
        providers: execution providers, first choice first.
    """

    def __init__(
        self, session: onnxruntime.InferenceSession, outputs: Sequence[str], *, device: str, resident: bool
    ) -> None:
        self._session = session
        self._outputs = list(outputs)
        self._resident = resident
        self.providers: list[str] = session.get_providers()
        self.device = device

    @classmethod
    def open(
        cls,
        path: Path,
        outputs: Mapping[str, tuple[int, ...]],
        *,
        device: str,
        threads: int,
        resident: bool = False,
    ) -> Encoder:
        """Load ``encoder.onnx``.

        Args:
            path: the file.
            outputs: name of each output that is needed, and its shape after Q.
            device: "cpu" or "cuda".
            threads: of one run, on the CPU.
            resident: whether outputs stay in the device's memory.

        Raises:
            BundleError: the graph cannot be loaded, has other inputs or outputs, or does not run on the device.
        """
        session = open_session(path, device=device, threads=threads)
        check_inputs(path, session, INPUTS)
        check_floats(path, "output", session.get_outputs(), outputs)
        return cls(session, list(outputs), device=device, resident=resident)

    def run(self, bags: Sequence[Bag]) -> Encoded:
        """Encode a batch of at least one bag.

        Raises:
            EngineFailed: an output is NaN or infinite; who reads resident ones finds that out.
        """
        ids_QT, values_QT = pad(bags)
        inputs: dict[str, NDArray[Any]] = {"ids": ids_QT, "values": values_QT}
        outputs = self._left(inputs) if self._resident else self._fetched(inputs)
        tokens = sum(bag.ids.size for bag in bags)
        return Encoded(outputs, padding_ratio=1.0 - tokens / ids_QT.size)

    def vectors(self, bags: Sequence[Bag], output: str) -> NDArray[np.float32]:
        """One output of the graph as an array, whether or not a decoder needs it; it may be NaN or infinite."""
        ids_QT, values_QT = pad(bags)
        vectors: NDArray[np.float32] = self._session.run([output], {"ids": ids_QT, "values": values_QT})[0]
        return vectors

    def outputs_of(self, encoded: Encoded, query: int) -> tuple[dict[str, Any], dict[str, NDArray[np.float32]]]:
        """What the graph made of one query of a batch, as `run` gives it and as arrays.

        From a device's memory the outputs of the whole batch are fetched.
        """
        if not self._resident:
            arrays = {name: array[query : query + 1] for name, array in encoded.outputs.items()}
            return arrays, arrays
        arrays = {name: value.numpy()[query : query + 1] for name, value in encoded.outputs.items()}
        placed = {name: onnxruntime.OrtValue.ortvalue_from_numpy(array, self.device) for name, array in arrays.items()}
        return placed, arrays

    def _fetched(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
        arrays = self._session.run(self._outputs, inputs)
        for name, array in zip(self._outputs, arrays, strict=True):
            if not np.isfinite(array).all():
                raise EngineFailed(f"the encoder's output {name} is NaN or infinite for one of {len(array)} queries")
        return dict(zip(self._outputs, arrays, strict=True))

    def _left(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
        binding = self._session.io_binding()
        for name, array in inputs.items():
            binding.bind_cpu_input(name, array)
        for name in self._outputs:
            binding.bind_output(name, self.device)
        self._session.run_with_iobinding(binding)
        return dict(zip(self._outputs, binding.get_outputs(), strict=True))
