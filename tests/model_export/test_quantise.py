"""Smaller weights: close to the full ones, the same in any company, and never left out silently."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import ModelProto, TensorProto, helper, numpy_helper

from model_export.errors import ExportError
from model_export.quantise import quantised
from service.bundle import layout, open_bundle
from service.decoders import decoder_class
from service.encoder import Encoder
from service.engine import Engine
from tests.artifacts import Workshop
from training.artifact import read_artifact

SMALL = ("fp16", "int8")


def lookup(table: np.ndarray) -> ModelProto:
    """A graph that looks up rows of a table."""
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "ids"], ["rows"], axis=0)],
        "lookup",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["Q"])],
        [helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["Q", table.shape[1]])],
        [numpy_helper.from_array(table.astype(np.float32), "table")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=11)


def run(model: ModelProto, values: np.ndarray, name: str = "ids") -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {name: values})[0]


def test_full_precision_is_the_model_itself() -> None:
    model = lookup(np.ones((2, 3)))
    assert quantised(model, "fp32") is model


@pytest.mark.parametrize(("precision", "error"), [("fp16", 2**-11), ("int8", 1 / 254)])
def test_every_row_keeps_its_own_scale(precision: str, error: float) -> None:
    """A table whose rows differ a thousandfold loses the same share of each; rows of zeros stay zeros."""
    table = np.random.default_rng(0).uniform(-1, 1, (50, 8)) * np.geomspace(0.1, 100, 50)[:, None]
    table[7] = 0
    rows = run(quantised(lookup(table), precision), np.arange(50))  # type: ignore[arg-type]
    bound = 1.01 * error * np.abs(table).max(axis=1, keepdims=True)
    assert (np.abs(rows - table) <= bound).all()
    assert not rows[7].any()


@pytest.mark.parametrize("precision", SMALL)
def test_the_original_is_left_as_it_was(precision: str) -> None:
    model = lookup(np.ones((2, 3)))
    before = model.SerializeToString(deterministic=True)
    quantised(model, precision)  # type: ignore[arg-type]
    assert model.SerializeToString(deterministic=True) == before


def test_weights_beyond_half_floats_are_refused() -> None:
    with pytest.raises(ExportError, match="table: expected weights that fp16 holds, up to 65504, found 70000"):
        quantised(lookup(np.full((2, 3), 7e4)), "fp16")


@pytest.mark.parametrize("precision", SMALL)
def test_a_matrix_that_no_rule_knows_is_not_left_large(precision: str) -> None:
    model = lookup(np.ones((2, 3)))
    model.graph.node[0].op_type = "GatherElements"
    with pytest.raises(ExportError, match=f"{precision}: expected no large float32 matrix to be left, found table"):
        quantised(model, precision)  # type: ignore[arg-type]


def layer(weights: np.ndarray, *, rectified: bool) -> ModelProto:
    """A graph that multiplies rows of any number of dimensions with a matrix."""
    rows = ["queries", "tokens", weights.shape[0]]
    nodes = [helper.make_node("Relu", ["x"], ["risen"])] if rectified else []
    nodes.append(helper.make_node("MatMul", ["risen" if rectified else "x", "weights"], ["y"]))
    graph = helper.make_graph(
        nodes,
        "layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, rows)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [*rows[:2], weights.shape[1]])],
        [numpy_helper.from_array(weights.astype(np.float32), "weights")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=11)


numbers = st.floats(-100, 100, width=32)


@given(
    rows=arrays(np.float32, (3, 2, 5), elements=numbers),
    weights=arrays(np.float32, (5, 4), elements=numbers),
    rectified=st.booleans(),
)
def test_a_layer_is_as_close_as_its_steps_and_blind_to_other_rows(
    rows: np.ndarray, weights: np.ndarray, rectified: bool
) -> None:
    """Half a step of the input and half a step of the weights, for each product that is summed."""
    model = quantised(layer(weights, rectified=rectified), "int8")
    read = np.maximum(rows, 0) if rectified else rows
    least = 0 if rectified else read.min(axis=2, keepdims=True)
    input_steps = (read.max(axis=2, keepdims=True) - least) / 255
    weight_steps = np.abs(weights).max(axis=0) / 64
    bound = np.abs(weights).sum(axis=0) * input_steps / 2
    bound = bound + (np.abs(read - least).sum(axis=2, keepdims=True) + np.abs(least) * 5) * weight_steps / 2
    found = run(model, rows, "x")
    assert (np.abs(found - read @ weights) <= 1.01 * bound + 1e-2).all()
    np.testing.assert_array_equal(np.concatenate([run(model, row[None], "x") for row in rows]), found)


@pytest.mark.parametrize(("rectified", "offsets"), [(True, 0), (False, 1)])
def test_rows_without_negative_numbers_need_no_offset(rectified: bool, offsets: int) -> None:
    nodes = quantised(layer(np.ones((5, 4)), rectified=rectified), "int8").graph.node
    assert [node.op_type for node in nodes].count("ReduceMin") == offsets


@pytest.mark.parametrize(
    "kind", ["mach", "mach-independent", "declare", "unidec", "mach-transformer", "unidec-transformer"]
)
def test_the_other_queries_of_a_batch_do_not_change_an_output(workshop: Workshop, kind: str) -> None:
    bundle = open_bundle(workshop.bundle(kind, "int8"))
    decoder = decoder_class(bundle.manifest.method.name).from_bundle(bundle, threads=1)
    encoder = Encoder.open(bundle.file(layout.ENCODER), decoder.required_outputs, device="cpu", threads=1)
    bags = Engine.open(bundle, device="cpu").prepare(read_artifact(workshop.artifact(kind)).samples)  # type: ignore[arg-type]
    (name,) = decoder.required_outputs
    together = encoder.run(bags).outputs[name]
    alone = np.concatenate([encoder.run([bag]).outputs[name] for bag in bags])
    np.testing.assert_allclose(alone, together, rtol=1e-4, atol=1e-5)


def test_layers_compute_in_integers(workshop: Workshop) -> None:
    model = onnx.load(workshop.bundle("mach", "int8") / layout.ENCODER)
    weights = {constant.name: numpy_helper.to_array(constant) for constant in model.graph.initializer}
    products = [node for node in model.graph.node if node.op_type == "MatMulInteger"]
    assert len(products) == 2
    # 7 bits: two products must fit 16 bits on processors that add them there.
    assert all(np.abs(weights[node.input[1]].astype(int)).max() <= 64 for node in products)
