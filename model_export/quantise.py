"""Smaller weights: half floats, or 8 bits with sums in 32-bit integers.

Both rewrite the kinds of node that read a matrix of weights: the lookup of rows in an embedding table (GatherND or
Gather) and the fully connected layer (Gemm, or MatMul where rows are tokens). Everything else, weighting, attention and
normalisation above all, stays float32.

* fp16 stores weights as half floats and computes in float32. Half the size, the same speed, and no feature value
  overflows, as it would if its square were taken in half precision.
* int8 stores table rows with a scale each, and multiplies in 8 bits: weights with a scale for each output, inputs with
  a range for each row, which is a query or one of its tokens. ONNX Runtime's own dynamic quantisation measures one
  range over the whole batch instead, so that the other queries of a batch would change an answer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from model_export.errors import ExportError
from service.bundle.manifest import Precision

# The narrowest range that a row is divided by: rows of zeros stay zeros.
TINY = 1e-12
ROW_LIMIT = 127
# 7 bits of weight: processors without VNNI add two products in 16 bits, which 8 bits overflow.
WEIGHT_LIMIT = 64
INPUT_LIMIT = 255

# Of all weights in matrices, how many no rule need know: tables of relative positions are read in many ways.
LEFT_SHARE = 0.1

# The place of a matrix of weights among a node's inputs.
PLACES = {"Gather": 0, "GatherND": 0, "Gemm": 1, "MatMul": 1}
# Operations whose results are never negative, and those of which this is so where it is so of their inputs.
POSITIVE = {"Abs", "Relu", "Sigmoid", "Softmax"}
SIGN_KEEPING = {"Add", "Max"}

Constants = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Layer:
    """A node that reads a matrix of weights.

    Attributes:
        node: as traced.
        weights: of two dimensions.
        signed: whether its input may have negative numbers.
    """

    node: NodeProto
    weights: NDArray[np.float32]
    signed: bool


@dataclass(frozen=True)
class Edit:
    """What takes a node's place: nodes in order, and new constants by name."""

    nodes: list[NodeProto]
    constants: Constants


Rule = Callable[[Layer], Edit]


def quantised(model: ModelProto, precision: Precision) -> ModelProto:
    """The model with its weights in ``precision``; fp32 is the model itself.

    Raises:
        ExportError: a matrix of weights cannot be stored so.
    """
    if precision == "fp32":
        return model
    lookup, layer = (_half_rows, _half_layer) if precision == "fp16" else (_int8_rows, _int8_layer)
    small = _rewritten(model, {"Gather": lookup, "GatherND": lookup, "Gemm": layer, "MatMul": layer})
    left, found = _matrices(small), _matrices(model)
    if sum(map(_count, left.values())) > LEFT_SHARE * sum(map(_count, found.values())):
        names = ", ".join(sorted(left))
        raise ExportError(f"precision {precision}: expected no large float32 matrix to be left, found {names}")
    return small


def _rewritten(model: ModelProto, rules: Mapping[str, Rule]) -> ModelProto:
    """A copy in which every node that reads a matrix where its rule expects one is replaced."""
    matrices = _matrices(model)
    producers = {output: node for node in model.graph.node for output in node.output}
    nodes: dict[str, NodeProto] = {}  # by first output: layers that read the same share what is made of it
    constants: Constants = {}
    replaced: set[str] = set()
    for node in model.graph.node:
        matrix = node.input[PLACES[node.op_type]] if node.op_type in PLACES else ""
        if matrix not in matrices or len(matrices[matrix].dims) > 2:
            nodes[node.output[0]] = node
            continue
        signed = not _is_never_negative(node.input[0], producers)
        edit = rules[node.op_type](Layer(node, numpy_helper.to_array(matrices[matrix]), signed))
        nodes |= {made.output[0]: made for made in edit.nodes if made.output[0] not in nodes}
        constants |= edit.constants
        replaced.add(matrix)
    weights = [weight for weight in model.graph.initializer if weight.name not in replaced]
    weights += [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(list(nodes.values()), model.graph.name, model.graph.input, model.graph.output, weights)
    return helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)


def _matrices(model: ModelProto) -> dict[str, TensorProto]:
    """The float32 weights of two dimensions, by name; a single column or row is a vector."""
    weights = [weight for weight in model.graph.initializer if weight.data_type == TensorProto.FLOAT]
    return {weight.name: weight for weight in weights if sum(size > 1 for size in weight.dims) > 1}


def _count(weights: TensorProto) -> int:
    return math.prod(weights.dims)


def _is_never_negative(name: str, producers: Mapping[str, NodeProto]) -> bool:
    """Whether a value has no negative number, whatever the graph is given."""
    node = producers.get(name)
    if node is None:
        return False
    if node.op_type in SIGN_KEEPING:
        return all(_is_never_negative(other, producers) for other in node.input)
    return node.op_type in POSITIVE


def _half_rows(layer: Layer) -> Edit:
    node, table = layer.node, layer.node.input[0]
    output = node.output[0]
    nodes = [
        _reading(node, f"{table}.half", f"{output}.half"),
        helper.make_node("Cast", [f"{output}.half"], [output], to=TensorProto.FLOAT),
    ]
    return Edit(nodes, {f"{table}.half": _half(table, layer.weights)})


def _half_layer(layer: Layer) -> Edit:
    """ONNX Runtime casts constants once, when it loads the model."""
    weights = layer.node.input[1]
    cast = helper.make_node("Cast", [f"{weights}.half"], [weights], to=TensorProto.FLOAT)
    return Edit([cast, layer.node], {f"{weights}.half": _half(weights, layer.weights)})


def _half(name: str, weights: NDArray[np.float32]) -> NDArray[np.float16]:
    largest = float(np.abs(weights).max())
    if largest > float(np.finfo(np.float16).max):
        raise ExportError(f"{name}: expected weights that fp16 holds, up to 65504, found {largest:g}")
    return weights.astype(np.float16)


def _int8_rows(layer: Layer) -> Edit:
    """Looks up 8-bit rows and their scales."""
    table, output = layer.node.input[0], layer.node.output[0]
    scales_V1 = np.maximum(np.abs(layer.weights).max(axis=1, keepdims=True) / ROW_LIMIT, TINY).astype(np.float32)
    nodes = [
        _reading(layer.node, f"{table}.int8", f"{output}.int8"),
        _reading(layer.node, f"{table}.scales", f"{output}.scales"),
        helper.make_node("Cast", [f"{output}.int8"], [f"{output}.unscaled"], to=TensorProto.FLOAT),
        helper.make_node("Mul", [f"{output}.unscaled", f"{output}.scales"], [output]),
    ]
    rows_VD = np.rint(layer.weights / scales_V1).astype(np.int8)
    return Edit(nodes, {f"{table}.int8": rows_VD, f"{table}.scales": scales_V1})


def _reading(node: NodeProto, table: str, output: str) -> NodeProto:
    """The same lookup in another table."""
    other = NodeProto()
    other.CopyFrom(node)
    other.input[0], other.output[0] = table, output
    other.ClearField("name")  # names are unique
    return other


def _int8_layer(layer: Layer) -> Edit:
    """Compute x W as r (u W) / 255 + m (1 W), with u = 255 (x - m) / r rounded to 8 bits, and W to 7.

    Here m is the smallest number of a row x and r its range. Rows without negative numbers take 0 for m, so that the
    last term falls away.
    """
    columns_DC = _columns(layer)
    scales_C = np.maximum(np.abs(columns_DC).max(axis=0) / WEIGHT_LIMIT, TINY)
    rounded_DC = np.rint(columns_DC / scales_C)
    x, weights, *bias = layer.node.input
    output = layer.node.output[0]
    inputs = _row_steps(x, signed=layer.signed)
    nodes = [
        *inputs.nodes,
        helper.make_node("MatMulInteger", [f"{x}.steps", f"{weights}.int8"], [f"{output}.sums"]),
        helper.make_node("Cast", [f"{output}.sums"], [f"{output}.product"], to=TensorProto.FLOAT),
        helper.make_node("Mul", [f"{output}.product", f"{x}.range"], [f"{output}.ranged"]),
        helper.make_node("Mul", [f"{output}.ranged", f"{weights}.scales"], [f"{output}.scaled"]),
    ]
    constants = inputs.constants | {
        f"{weights}.int8": rounded_DC.astype(np.int8),
        f"{weights}.scales": (scales_C / INPUT_LIMIT).astype(np.float32),
    }
    terms = [f"{output}.scaled", *bias]
    if layer.signed:
        nodes.append(helper.make_node("Mul", [f"{x}.least", f"{weights}.totals"], [f"{output}.offset"]))
        constants[f"{weights}.totals"] = (rounded_DC.sum(axis=0) * scales_C).astype(np.float32)
        terms.append(f"{output}.offset")
    partial = terms[0]
    for number, term in enumerate(terms[1:]):
        nodes.append(helper.make_node("Add", [partial, term], [f"{output}.{number}"]))
        partial = f"{output}.{number}"
    nodes[-1].output[0] = output
    return Edit(nodes, constants)


def _columns(layer: Layer) -> NDArray[np.float32]:
    """Weights with a column for each output."""
    if layer.node.op_type == "MatMul":
        return layer.weights
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in layer.node.attribute}
    plain = {"transA": 0, "alpha": 1.0, "beta": 1.0}
    assert {name: attributes.get(name, value) for name, value in plain.items()} == plain, "a layer is x W + b"
    return layer.weights.T if attributes.get("transB") else layer.weights


def _row_steps(x: str, *, signed: bool) -> Edit:
    """The rows of a value in steps from 0 to 255, their ranges, and their smallest numbers if these are not 0."""
    nodes = [helper.make_node("ReduceMax", [x, "last_axis"], [f"{x}.most"], keepdims=1)]
    width, risen = f"{x}.most", x
    if signed:
        width, risen = f"{x}.width", f"{x}.risen"
        nodes += [
            helper.make_node("ReduceMin", [x, "last_axis"], [f"{x}.least"], keepdims=1),
            helper.make_node("Sub", [f"{x}.most", f"{x}.least"], [width]),
            helper.make_node("Sub", [x, f"{x}.least"], [risen]),
        ]
    nodes += [
        helper.make_node("Max", [width, "tiny"], [f"{x}.range"]),
        helper.make_node("Div", [risen, f"{x}.range"], [f"{x}.share"]),
        helper.make_node("QuantizeLinear", [f"{x}.share", "step", "zero"], [f"{x}.steps"]),
    ]
    constants: Constants = {
        "last_axis": np.array([-1], dtype=np.int64),
        "tiny": np.array(TINY, dtype=np.float32),
        "step": np.array(1 / INPUT_LIMIT, dtype=np.float32),
        "zero": np.array(0, dtype=np.uint8),
    }
    return Edit(nodes, constants)
