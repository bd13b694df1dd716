from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import onnxruntime
import pytest

from service.bundle import layout
from service.errors import BundleError
from service.sessions import CPU_PROVIDER, CUDA_PROVIDER, open_session, resolve_device
from tests.bundles import write_bundle


@pytest.fixture
def cuda_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    """An ONNX Runtime that was built with CUDA."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA_PROVIDER, CPU_PROVIDER])
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None)


@pytest.fixture
def cuda_device(cuda_wheel: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """... on a machine with a GPU, as far as asking for its memory tells."""
    monkeypatch.setattr(onnxruntime, "OrtValue", type("OrtValue", (), {"ortvalue_from_numpy": lambda *_: None}))


def without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CPU_PROVIDER])


def test_the_cpu_is_where_it_is_asked_for(cuda_device: None) -> None:
    assert resolve_device("cpu", "fp32") == "cpu"


def test_auto_takes_the_processor_where_there_is_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    without_cuda(monkeypatch)
    assert resolve_device("auto", "fp32") == "cpu"


def test_auto_takes_a_gpu_for_what_a_gpu_computes(cuda_device: None) -> None:
    assert [resolve_device("auto", precision) for precision in ("fp32", "fp16", "int8")] == ["cuda", "cuda", "cpu"]


def test_cuda_without_its_provider_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    without_cuda(monkeypatch)
    with pytest.raises(BundleError, match=r"device cuda: expected CUDAExecutionProvider in ONNX Runtime, found CPU"):
        resolve_device("cuda", "fp32")


def test_cuda_for_8_bits_is_an_error(cuda_device: None) -> None:
    with pytest.raises(BundleError, match=r"device cuda: expected weights in fp32 or fp16, found int8"):
        resolve_device("cuda", "int8")


def test_cuda_without_a_device_is_an_error(cuda_wheel: None) -> None:
    """The wheel offers CUDA, the machine has none: ONNX Runtime would go on without a word."""

    def refuse(*_: object) -> None:
        raise RuntimeError("no CUDA-capable device is detected\nat some line")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnxruntime, "OrtValue", type("OrtValue", (), {"ortvalue_from_numpy": refuse}))
        with pytest.raises(BundleError, match=r"found: no CUDA-capable device is detected$"):
            resolve_device("cuda", "fp32")
        assert resolve_device("auto", "fp32") == "cpu"


class Node(NamedTuple):
    op_type: str


class Part(NamedTuple):
    ep_name: str
    operations: tuple[str, ...]

    def get_nodes(self) -> list[Node]:
        return [Node(operation) for operation in self.operations]


def placed(provider: str, *parts: Part) -> Callable[..., Any]:
    """A session that says where its nodes are."""

    session = SimpleNamespace(
        get_providers=lambda: [provider, CPU_PROVIDER], get_provider_graph_assignment_info=lambda: parts
    )
    return lambda *_, **__: session


def test_a_session_that_went_to_the_cpu_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "InferenceSession", placed(CPU_PROVIDER))
    with pytest.raises(BundleError, match="expected to run on CUDAExecutionProvider, found CPUExecutionProvider"):
        open_session(tmp_path / "encoder.onnx", device="cuda", threads=1)


def test_work_that_cuda_leaves_to_the_cpu_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = Part(CUDA_PROVIDER, ("MatMul",)), Part(CPU_PROVIDER, ("Shape", "NonZero", "MatMulInteger", "Concat"))
    monkeypatch.setattr(onnxruntime, "InferenceSession", placed(CUDA_PROVIDER, *parts))
    with pytest.raises(BundleError, match=r"a graph that runs on CUDA, found MatMulInteger, NonZero on the CPU"):
        open_session(tmp_path / "encoder.onnx", device="cuda", threads=1)


def test_shapes_may_be_computed_on_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = Part(CUDA_PROVIDER, ("MatMul",)), Part(CPU_PROVIDER, ("Shape", "Concat"))
    monkeypatch.setattr(onnxruntime, "InferenceSession", placed(CUDA_PROVIDER, *parts))
    assert open_session(tmp_path / "encoder.onnx", device="cuda", threads=1).get_providers()[0] == CUDA_PROVIDER


def test_sessions_say_where_their_nodes_are(tmp_path: Path) -> None:
    """What the check of the placement reads, from the runtime itself."""
    write_bundle(tmp_path / "bundle")
    session = open_session(tmp_path / "bundle" / layout.ENCODER, device="cpu", threads=1)
    parts = session.get_provider_graph_assignment_info()
    assert {part.ep_name for part in parts} == {CPU_PROVIDER}
    assert "Gather" in {node.op_type for part in parts for node in part.get_nodes()}
