"""Graphs made in memory, and sessions that hold the tables that they read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from service.decoders.rooms import Rooms
from service.errors import BundleError
from service.sessions import make_session

OPSET = 18
# The type, and the shape if it matters, of an input or output.
Value = tuple[int, list[int | str]]


class Nodes:
    """A graph in the making: every call adds a node and gives the name of its result."""

    def __init__(self) -> None:
        self._nodes: list[Any] = []
        self._constants: list[TensorProto] = []

    def add(self, operation: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output."""
        return self._add(operation, inputs, 1, attributes)[0]

    def top(self, values: str, k: str) -> tuple[str, str]:
        """The k largest of the last axis, falling, and their places."""
        best, places = self._add("TopK", (values, k), 2, {})
        return best, places

    def constant(self, array: NDArray[Any]) -> str:
        """A value that is known already."""
        name = f"constant.{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(array, name))
        return name

    def model(self, inputs: Mapping[str, Value], outputs: Mapping[str, tuple[str, Value]]) -> ModelProto:
        """The finished graph.

        Args:
            inputs: by name.
            outputs: by name: which result each is, and its type.
        """
        ends = [helper.make_node("Identity", [result], [name]) for name, (result, _) in outputs.items()]
        graph = helper.make_graph(
            [*self._nodes, *ends],
            "resident",
            [helper.make_tensor_value_info(name, *value) for name, value in inputs.items()],
            [helper.make_tensor_value_info(name, *value) for name, (_, value) in outputs.items()],
            self._constants,
        )
        opsets = [helper.make_opsetid("", OPSET)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=helper.find_min_ir_version_for(opsets))

    def _add(self, operation: str, inputs: tuple[str, ...], count: int, attributes: dict[str, Any]) -> list[str]:
        outputs = [f"{operation}.{len(self._nodes)}.{number}" for number in range(count)]
        self._nodes.append(helper.make_node(operation, list(inputs), outputs, **attributes))
        return outputs


class ResidentGraph:
    """A session whose tables were copied to the device once; ``run`` may be called from several threads.

    Args:
        model: the graph.
        tables: those of its inputs that never change.
        device: "cpu" or "cuda", in ONNX Runtime's words.

    Raises:
        BundleError: the tables find no room on the device.
    """

    def __init__(self, model: ModelProto, tables: Mapping[str, NDArray[Any]], device: str) -> None:
        self._session = make_session(model.SerializeToString(), device=device, threads=1)
        self._outputs = [node.name for node in self._session.get_outputs()]
        self._tables = _placed(tables, device)
        self._bindings: Rooms[Any] = Rooms(self._make_binding)

    def run(self, values: Mapping[str, Any], numbers: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """The outputs, in their order.

        Args:
            values: inputs in the device's memory.
            numbers: inputs that are not.
        """
        with self._bindings.taken() as binding:
            for name, value in values.items():
                binding.bind_ortvalue_input(name, value)
            for name, array in numbers.items():
                binding.bind_cpu_input(name, array)
            # Bound anew, for a bound output keeps the size of its last run.
            for name in self._outputs:
                binding.bind_output(name, "cpu")
            self._session.run_with_iobinding(binding)
            arrays: list[NDArray[Any]] = binding.copy_outputs_to_cpu()
            return arrays

    def _make_binding(self) -> Any:
        binding = self._session.io_binding()
        for name, table in self._tables.items():
            binding.bind_ortvalue_input(name, table)
        return binding


def _placed(tables: Mapping[str, NDArray[Any]], device: str) -> dict[str, Any]:
    try:
        return {name: onnxruntime.OrtValue.ortvalue_from_numpy(array, device, 0) for name, array in tables.items()}
    except Exception as error:  # ONNX Runtime's exceptions share no base class of their own
        gigabytes = sum(array.nbytes for array in tables.values()) / 1e9
        reason = str(error).partition("\n")[0]
        raise BundleError(
            f"device {device}: expected room for {gigabytes:.1f} GB of tables, found: {reason}"
        ) from error
