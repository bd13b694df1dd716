"""From bags to named arrays: the encoder's graph behind one narrow door.

Outputs are handed to the decoder where it reads them: as arrays, or left in the memory of the device that made them.

Letters: Q queries in a batch, T ids of the longest bag.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

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

    def rows(self, query: int) -> dict[str, NDArray[Any]]:
        """Those of one query, of outputs that are arrays."""
        return {name: array[query : query + 1] for name, array in self.outputs.items()}


class QueryEncoder(Protocol):
    """What makes of a batch what a decoder reads; may be called from several threads.

    Attributes:
        device: "cpu" or "cuda".
        providers: execution providers, first choice first.
    """

    device: str
    providers: list[str]

    def run(self, bags: Sequence[Bag]) -> Encoded:
        """Encode a batch of at least one bag.

        Raises:
            EngineFailed: the model gave numbers that are not finite.
        """
        ...

    def outputs_of(self, encoded: Encoded, query: int) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """One query of a batch, as `run` gives it and as arrays."""
        ...


def inputs_of(bags: Sequence[Bag]) -> tuple[dict[str, NDArray[Any]], float]:
    """A batch as the graph reads it, and the share of it that is padding."""
    ids_QT, values_QT = pad(bags)
    return {"ids": ids_QT, "values": values_QT}, 1.0 - sum(bag.ids.size for bag in bags) / ids_QT.size


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
        inputs, padding_ratio = inputs_of(bags)
        return Encoded(self._left(inputs) if self._resident else self.fetched(inputs), padding_ratio)

    def vectors(self, bags: Sequence[Bag], output: str) -> NDArray[np.float32]:
        """One output of the graph as an array, whether or not a decoder needs it; it may be NaN or infinite."""
        vectors: NDArray[np.float32] = self._session.run([output], inputs_of(bags)[0])[0]
        return vectors

    def outputs_of(self, encoded: Encoded, query: int) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """What the graph made of one query of a batch, as `run` gives it and as arrays.

        From a device's memory the outputs of the whole batch are fetched.
        """
        if not self._resident:
            arrays = encoded.rows(query)
            return arrays, arrays
        arrays = {name: value.numpy()[query : query + 1] for name, value in encoded.outputs.items()}
        placed = {name: onnxruntime.OrtValue.ortvalue_from_numpy(array, self.device) for name, array in arrays.items()}
        return placed, arrays

    def fetched(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
        """What the graph makes of a batch as it reads it, as arrays.

        Args:
            inputs: see `inputs_of`.

        Raises:
            EngineFailed: see `run`.
        """
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
