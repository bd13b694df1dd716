"""From a torch module to `encoder.onnx`: one file, dynamic in Q and T, equal bytes from equal weights.

The exporter annotates every node with the Python source it came from. That is stripped: it holds paths of the machine
that exported, and would make every bundle differ from the next.

Letters: Q queries in a batch, T ids of the longest bag.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import onnx
import torch
from onnx import ModelProto
from torch import nn

from model_export.errors import ExportError

INPUTS = ("ids", "values")
# The newest that this torch translates to.
OPSET = 23
# Limit of a protobuf message; beyond it weights need files of their own, which bundles do not have.
MOST_BYTES = 2**31 - 1
# Marks inputs and outputs while a graph is traced, which may call something within by the same name.
OUTER = "outer."


def trace(graph: nn.Module, outputs: Sequence[str]) -> ModelProto:
    """Translate a module to ONNX.

    Args:
        graph: takes padded ids int64 and values float32, (Q, T) each; gives a tensor with Q rows, or several.
        outputs: names of these tensors, in their order.
    """
    # Neither size is 0 or 1, which the tracer would take for constants.
    example = (torch.zeros(2, 3, dtype=torch.int64), torch.ones(2, 3))
    with _quiet():
        program = torch.onnx.export(
            graph.eval(),
            example,
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=[OUTER + name for name in INPUTS],
            output_names=[OUTER + name for name in outputs],
            dynamic_shapes=({0: "Q", 1: "T"}, {0: "Q", 1: "T"}),
        )
    assert program is not None, "without a file to write to, the exporter returns the program"
    return stripped(_named(program.model_proto, {*INPUTS, *outputs}))


def _named(model: ModelProto, names: set[str]) -> ModelProto:
    """Give inputs and outputs their names, and what is called so within another; changed in place."""
    new = {name: f"inner.{name}" for name in names} | {OUTER + name: name for name in names}
    graph = model.graph
    for value in (*graph.input, *graph.output, *graph.initializer):
        value.name = new.get(value.name, value.name)
    for node in graph.node:
        node.input[:] = [new.get(name, name) for name in node.input]
        node.output[:] = [new.get(name, name) for name in node.output]
    return model


def stripped(model: ModelProto) -> ModelProto:
    """The same model without notes on where it came from; changed in place."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.initializer, *graph.input, *graph.output):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    graph.ClearField("value_info")
    model.ClearField("producer_name")
    model.ClearField("producer_version")
    model.ir_version = onnx.helper.find_min_ir_version_for(model.opset_import)
    return model


def save_encoder(model: ModelProto, path: Path) -> None:
    """Write the model as one file.

    Raises:
        ExportError: it is larger than one file can be.
    """
    weights_bytes = sum(len(weight.raw_data) for weight in model.graph.initializer)
    if weights_bytes > MOST_BYTES:
        raise ExportError(
            f"{path.name}: expected at most {MOST_BYTES:,} bytes of weights, found {weights_bytes:,}; "
            "a lower --precision, narrower encoder.widths or a smaller vocabulary make it fit"
        )
    path.write_bytes(model.SerializeToString(deterministic=True))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's notices about itself from the user; what goes wrong is raised all the same."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
