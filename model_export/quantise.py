"""Smaller weights: half floats, or 8 bits with sums in 32-bit integers.

Both rewrite the two kinds of node that read a matrix of weights: the lookup of rows in the embedding table (GatherND or
Gather) and the fully connected layer (Gemm). Everything else, weighting and normalisation above all, stays float32.

* fp16 stores weights as half floats and computes in float32. Half the size, the same speed, and no feature value
  overflows, as it would if its square were taken in half precision.
* int8 stores table rows with a scale each, and computes layers in 8 bits by ONNX Runtime's dynamic quantisation. That
  measures the range of its input over the whole batch, so that the other queries of a batch would change an answer.
  Here every row is divided by its own peak first: inputs, which are ReLU's outputs, then fill 0 to 1 whatever the
  company, and small rows lose fewer digits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from model_export.errors import ExportError
from model_export.onnx_encoder import stripped
from service.bundle.manifest import Precision

# The narrowest positive peak that a row is divided by: rows of zeros stay zeros.
TINY = 1e-12
INT8_LIMIT = 127

Constants = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Edit:
    """What takes a node's place: nodes in order, and new constants by name."""

    nodes: list[NodeProto]
    constants: Constants


# From a node and its weights to what takes the node's place.
Rule = Callable[[NodeProto, NDArray[np.float32]], Edit]


def quantised(model: ModelProto, precision: Precision) -> ModelProto:
    """The model with its weights in ``precision``; fp32 is the model itself.

    Raises:
        ExportError: a matrix of weights cannot be stored so.
    """
    if precision == "fp32":
        return model
    if precision == "fp16":
        small = _rewritten(model, {"Gather": _half_rows, "GatherND": _half_rows, "Gemm": _half_layer})
    else:
        rows = _rewritten(model, {"Gather": _int8_rows, "GatherND": _int8_rows, "Gemm": _row_scaled_layer})
        small = _with_int8_products(rows)
    if left := sorted(_matrices(small)):
        raise ExportError(f"precision {precision}: expected no float32 matrix to be left, found {', '.join(left)}")
    return small


def _rewritten(model: ModelProto, rules: Mapping[str, Rule]) -> ModelProto:
    """A copy in which every node that reads a matrix and has a rule is replaced."""
    matrices = _matrices(model)
    nodes: list[NodeProto] = []
    constants: Constants = {}
    replaced: set[str] = set()
    for node in model.graph.node:
        matrix = next((name for name in node.input if name in matrices), None)
        rule = rules.get(node.op_type)
        if matrix is None or rule is None:
            nodes.append(node)
            continue
        edit = rule(node, numpy_helper.to_array(matrices[matrix]))
        nodes += edit.nodes
        constants |= edit.constants
        replaced.add(matrix)
    weights = [weight for weight in model.graph.initializer if weight.name not in replaced]
    weights += [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, model.graph.name, model.graph.input, model.graph.output, weights)
    return helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)


def _matrices(model: ModelProto) -> dict[str, TensorProto]:
    """The float32 weights of two dimensions, by name; a single column is a vector."""
    weights = [weight for weight in model.graph.initializer if weight.data_type == TensorProto.FLOAT]
    return {weight.name: weight for weight in weights if len(weight.dims) > 1 and weight.dims[-1] > 1}


def _half_rows(node: NodeProto, table_VD: NDArray[np.float32]) -> Edit:
    table, output = node.input[0], node.output[0]
    nodes = [
        _reading(node, f"{table}.half", f"{output}.half"),
        helper.make_node("Cast", [f"{output}.half"], [output], to=TensorProto.FLOAT),
    ]
    return Edit(nodes, {f"{table}.half": _half(table, table_VD)})


def _half_layer(node: NodeProto, weights_DC: NDArray[np.float32]) -> Edit:
    """ONNX Runtime casts constants once, when it loads the model."""
    weights = node.input[1]
    cast = helper.make_node("Cast", [f"{weights}.half"], [weights], to=TensorProto.FLOAT)
    return Edit([cast, node], {f"{weights}.half": _half(weights, weights_DC)})


def _half(name: str, weights: NDArray[np.float32]) -> NDArray[np.float16]:
    largest = float(np.abs(weights).max())
    if largest > float(np.finfo(np.float16).max):
        raise ExportError(f"{name}: expected weights that fp16 holds, up to 65504, found {largest:g}")
    return weights.astype(np.float16)


def _int8_rows(node: NodeProto, table_VD: NDArray[np.float32]) -> Edit:
    """Looks up 8-bit rows and their scales."""
    table, output = node.input[0], node.output[0]
    scales_V1 = np.maximum(np.abs(table_VD).max(axis=1, keepdims=True) / INT8_LIMIT, TINY).astype(np.float32)
    nodes = [
        _reading(node, f"{table}.int8", f"{output}.int8"),
        _reading(node, f"{table}.scales", f"{output}.scales"),
        helper.make_node("Cast", [f"{output}.int8"], [f"{output}.unscaled"], to=TensorProto.FLOAT),
        helper.make_node("Mul", [f"{output}.unscaled", f"{output}.scales"], [output]),
    ]
    rows_VD = np.rint(table_VD / scales_V1).astype(np.int8)
    return Edit(nodes, {f"{table}.int8": rows_VD, f"{table}.scales": scales_V1})


def _reading(node: NodeProto, table: str, output: str) -> NodeProto:
    """The same lookup in another table."""
    other = NodeProto()
    other.CopyFrom(node)
    other.input[0], other.output[0] = table, output
    other.ClearField("name")  # names are unique
    return other


def _row_scaled_layer(node: NodeProto, weights_DC: NDArray[np.float32]) -> Edit:
    """Scaled by row: x W + b is (x / peak) W * peak + b, where peak is the largest magnitude in a row of x."""
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    plain = {"transA": 0, "alpha": 1.0, "beta": 1.0}
    assert {name: attributes.get(name, value) for name, value in plain.items()} == plain, "a layer is x W + b"
    inputs, weights, bias = node.input
    output = node.output[0]
    nodes = [
        helper.make_node("Abs", [inputs], [f"{output}.magnitudes"]),
        helper.make_node("ReduceMax", [f"{output}.magnitudes", "last_axis"], [f"{output}.peak"], keepdims=1),
        helper.make_node("Max", [f"{output}.peak", "tiny"], [f"{output}.safe_peak"]),
        helper.make_node("Div", [inputs, f"{output}.safe_peak"], [f"{output}.input"]),
        helper.make_node("MatMul", [f"{output}.input", f"{weights}.columns"], [f"{output}.product"]),
        helper.make_node("Mul", [f"{output}.product", f"{output}.safe_peak"], [f"{output}.scaled"]),
        helper.make_node("Add", [f"{output}.scaled", bias], [output]),
    ]
    columns = weights_DC.T if attributes.get("transB") else weights_DC
    constants: Constants = {
        f"{weights}.columns": np.ascontiguousarray(columns),
        "last_axis": np.array([-1], dtype=np.int64),
        "tiny": np.array(TINY, dtype=np.float32),
    }
    return Edit(nodes, constants)


def _with_int8_products(model: ModelProto) -> ModelProto:
    """Products with constant matrices in 8-bit integers, a scale for each output column."""
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.quant_utils import add_pre_process_metadata

    # Keeps the library from advising a preparation that this graph does not need; stripped again below.
    add_pre_process_metadata(model)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "int8.onnx"
        quantize_dynamic(
            model,
            path,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            # 7 bits of weight: processors without VNNI add two products in 16 bits, which 8 bits overflow.
            reduce_range=True,
            weight_type=QuantType.QInt8,
        )
        return stripped(onnx.load(path))
