from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from service.bags import Bag
from service.bundle import layout
from service.encoder import Encoder
from service.errors import BundleError, EngineFailed
from tests.bundles import METHODS, Method, Spec, write_bundle

OUTPUTS = {
    "mach": {"bucket_logits": (4, 16)},
    "declare": {"embedding": (6,)},
    "unidec": {"query": (8,)},
    "ova": {"query": (8,)},
}


def bag(ids: list[int], values: list[float]) -> Bag:
    return Bag(np.array(ids, dtype=np.int64), np.array(values, dtype=np.float32))


BAGS = [bag([1, 3], [2.0, 1.0]), bag([], []), bag([0, 5, 7, 9], [1.0, -1.0, 0.5, 3.0])]


def opened(path: Path, method: str, device: str = "cpu") -> Encoder:
    return Encoder.open(path / layout.ENCODER, OUTPUTS[method], device=device, threads=1)


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_agrees_with_the_reference_whatever_its_padding(tmp_path: Path, method: Method) -> None:
    model = write_bundle(tmp_path / "bundle", Spec(method=method))
    encoder = opened(tmp_path / "bundle", method)
    encoded = encoder.run(BAGS)
    (output,) = encoded.outputs.values()
    assert output.dtype == np.float32
    np.testing.assert_allclose(output, model.encode(BAGS), atol=1e-5)
    assert encoded.padding_ratio == pytest.approx(0.5)
    assert encoder.run(BAGS[2:]).padding_ratio == 0.0


def test_outputs_may_stay_where_they_were_computed(tmp_path: Path) -> None:
    model = write_bundle(tmp_path / "bundle")
    file = tmp_path / "bundle" / layout.ENCODER
    encoder = Encoder.open(file, OUTPUTS["mach"], device="cpu", threads=1, resident=True)
    (output,) = encoder.run(BAGS).outputs.values()
    assert output.device_name() == "cpu"
    np.testing.assert_allclose(output.numpy(), model.encode(BAGS), atol=1e-5)


def test_the_session_takes_the_threads_it_is_given_and_does_not_spin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bundle(tmp_path / "bundle")
    start, seen = onnxruntime.InferenceSession, []

    def recorded(path: str, options: onnxruntime.SessionOptions, providers: list[str]) -> object:
        seen.append(options)
        return start(path, options, providers=providers)

    monkeypatch.setattr(onnxruntime, "InferenceSession", recorded)
    Encoder.open(tmp_path / "bundle" / layout.ENCODER, OUTPUTS["mach"], device="cpu", threads=3)
    (options,) = seen
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (3, 1)
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert options.get_session_config_entry("session.inter_op.allow_spinning") == "0"
    assert not options.enable_mem_pattern


def not_onnx(file: Path) -> None:
    file.write_bytes(b"not a graph")


def other_input(file: Path) -> None:
    model = onnx.load(str(file))
    model.graph.input[1].name = "amounts"
    for node in model.graph.node:
        node.input[:] = ["amounts" if name == "values" else name for name in node.input]
    onnx.save(model, str(file))


def other_output(file: Path) -> None:
    model = onnx.load(str(file))
    model.graph.output[0].name = model.graph.node[-1].output[0] = "logits"
    onnx.save(model, str(file))


def other_width(file: Path) -> None:
    model = onnx.load(str(file))
    shape = next(tensor for tensor in model.graph.initializer if tensor.name == "shape")
    shape.CopyFrom(onnx.numpy_helper.from_array(np.array([-1, 8, 8], dtype=np.int64), "shape"))
    info = helper.make_tensor_value_info("bucket_logits", TensorProto.FLOAT, ["Q", 8, 8])
    model.graph.output[0].CopyFrom(info)
    onnx.save(model, str(file))


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (not_onnx, "expected a graph that ONNX Runtime loads, found: "),
        (other_input, r"expected inputs \{'ids': 'tensor\(int64\)', 'values': .*, found .*'amounts'"),
        (other_output, r"expected an output 'bucket_logits', found \['logits'\]"),
        (
            other_width,
            r"expected output bucket_logits tensor\(float\) \['Q', 4, 16\], found tensor\(float\) \['Q', 8, 8\]",
        ),
    ],
)
def test_a_graph_of_another_kind_is_refused(tmp_path: Path, damage: Callable[[Path], None], sentence: str) -> None:
    write_bundle(tmp_path / "bundle")
    damage(tmp_path / "bundle" / layout.ENCODER)
    with pytest.raises(BundleError, match=rf"encoder\.onnx: {sentence}") as caught:
        opened(tmp_path / "bundle", "mach")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_outputs_that_are_not_finite_are_an_error(tmp_path: Path, value: float) -> None:
    write_bundle(tmp_path / "bundle")
    with pytest.raises(EngineFailed, match="output bucket_logits is NaN or infinite for one of 2 queries"):
        opened(tmp_path / "bundle", "mach").run([BAGS[0], bag([0], [value])])
