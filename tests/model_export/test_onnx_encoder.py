"""The exported graph: lean, anonymous, dynamic in both sizes, one file."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import onnx
import pytest

from model_export import onnx_encoder
from model_export.errors import ExportError
from model_export.exporters import EXPORTERS
from service.bundle import layout
from service.bundle.manifest import Precision
from tests.artifacts import Workshop
from training.artifact import read_artifact

OUTPUTS = {"mach": ["Q", 6, 300], "declare": ["Q", 24], "unidec": ["Q", 48]}


def loaded(workshop: Workshop, kind: str) -> onnx.ModelProto:
    return onnx.load(workshop.bundle(kind) / layout.ENCODER)


def shape(value: onnx.ValueInfoProto) -> list[str | int]:
    return [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim]


@pytest.mark.parametrize("method", OUTPUTS)
def test_inputs_and_outputs_are_named_and_dynamic(workshop: Workshop, method: str) -> None:
    model = loaded(workshop, method)
    onnx.checker.check_model(model, full_check=True)
    assert [(value.name, shape(value)) for value in model.graph.input] == [("ids", ["Q", "T"]), ("values", ["Q", "T"])]
    assert [(value.name, shape(value)) for value in model.graph.output] == [(EXPORTERS[method].output, OUTPUTS[method])]
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", onnx_encoder.OPSET)]


@pytest.mark.parametrize(("kind", "width"), [("unidec-own", 48), ("depsl-own-transformer", 24)])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_labels_with_a_projection_of_their_own_have_an_output(
    workshop: Workshop, kind: str, width: int, precision: Precision
) -> None:
    model = onnx.load(workshop.bundle(kind, precision) / layout.ENCODER)
    onnx.checker.check_model(model, full_check=True)
    outputs = [(value.name, shape(value)) for value in model.graph.output]
    assert outputs == [("query", ["Q", width]), ("label", ["Q", 24])]


@pytest.mark.parametrize("kind", ["mach", "mach-independent", "declare", "unidec", "unidec-own", "mach-features"])
def test_the_graph_holds_every_weight_once_and_nothing_else(workshop: Workshop, kind: str) -> None:
    model = loaded(workshop, kind)
    trained = read_artifact(workshop.artifact(kind)).restore()
    text, networks = not kind.endswith("features"), 3 if kind == "mach-independent" else 1
    used = {name: weight for name, weight in trained.state_dict().items() if name != "classifier.weight"}
    weights = sum(weight.numel() for name, weight in used.items() if text or not name.endswith("idf"))
    constants = sum(onnx.numpy_helper.to_array(constant).size for constant in model.graph.initializer)
    # Beside the weights: scalars, shapes, and DECLARE's column scales.
    assert weights < constants < weights + 50
    counts = Counter(node.op_type for node in model.graph.node)
    assert counts["Gather"] + counts["GatherND"] == networks * (2 if text else 1)
    assert counts["MatMul"] == networks
    assert counts["Transpose"] == counts["Identity"] == counts["Dropout"] == 0


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_file_says_nothing_of_the_machine_that_wrote_it(workshop: Workshop, precision: str) -> None:
    raw = (workshop.bundle("mach-independent", precision) / layout.ENCODER).read_bytes()  # type: ignore[arg-type]
    for mark in (b".py", b"pytorch", b"torch", str(Path.cwd()).encode()):
        assert mark not in raw


def test_the_exporter_says_nothing(workshop: Workshop, capfd: pytest.CaptureFixture[str]) -> None:
    exporter = EXPORTERS["declare"](read_artifact(workshop.artifact("declare-features")))
    onnx_encoder.trace(exporter.graph(), exporter.outputs)
    assert capfd.readouterr() == ("", "")


def test_an_encoder_that_one_file_cannot_hold_is_refused(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_encoder, "MOST_BYTES", 10_000)
    with pytest.raises(
        ExportError, match=r"encoder\.onnx: expected at most 10,000 bytes of weights, found \d{3},\d{3}"
    ):
        onnx_encoder.save_encoder(loaded(workshop, "mach"), tmp_path / "encoder.onnx")
    assert list(tmp_path.iterdir()) == []
