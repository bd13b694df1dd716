"""CUDA on machines that are not here: the driver's libraries are stand-ins with the signatures of their C functions."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import Any

import pytest

from service.doctor import cuda, driver
from service.doctor.child import Heard
from service.doctor.context import Context
from service.doctor.findings import Finding, State
from service.nvml import Nvml, NvmlError
from tests.service.test_nvml import Library

CUDA_12, CUDA_13 = 12020, 13000


class Libcuda:
    def __init__(self, version: int, code: int = 0) -> None:
        self._version = version
        self._code = code

    def cuDriverGetVersion(self, version: Any) -> int:
        ctypes.cast(version, ctypes.POINTER(ctypes.c_int))[0] = self._version
        return self._code


class Machine:
    """A machine with a driver, and what ONNX Runtime finds there."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch

    def has_driver(self, version: int, *, nvml: bool = True, code: int = 0) -> None:
        def open_nvml() -> Nvml:
            if not nvml:
                raise NvmlError("none")
            return Nvml(Library({"GPU-5f1c": 0, "GPU-93ad": 0}))

        self._patch.setattr(Nvml, "open", open_nvml)
        self._patch.setattr(driver.ctypes, "CDLL", {driver.LIBRARY: Libcuda(version, code)}.__getitem__)

    def answers(self, *answers: object, end: str | None = None) -> None:
        self._patch.setattr(cuda, "ask", lambda _: Heard(list(answers), end))


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    with monkeypatch.context() as patch:
        yield Machine(patch)


def look(device: str) -> dict[str, Finding]:
    return {finding.subject: finding for finding in cuda.look(Context.of({"device": device}, {}))}


def test_a_machine_on_which_cuda_works_has_no_fault(machine: Machine) -> None:
    machine.has_driver(CUDA_13)
    machine.answers("13.0", [], ["libcublas.so.13", "libcudnn.so.9"], None)
    found = look("cuda")
    assert {finding.state for finding in found.values()} == {State.OK}
    assert found["driver"].found == "580.65.06, speaks CUDA 13.0, GPUs: 2"
    assert found["CUDA libraries"].found == "libcublas.so.13, libcudnn.so.9"
    assert found["device"].found == "cuda: ONNX Runtime, built for CUDA 13.0, can use it"


@pytest.mark.parametrize("built_for", ["13.0", ""])
def test_a_driver_that_is_too_old_is_named(machine: Machine, built_for: str) -> None:
    machine.has_driver(CUDA_12)
    machine.answers(built_for, [], [], "expected a device that CUDA can use, found: CUDA failure 35")
    found = look("cuda")["driver"]
    assert found.state is State.FAULT
    assert found.found == "expected one that speaks CUDA 13, found 580.65.06, speaks CUDA 12.2, GPUs: 2"
    assert found.advice == "install a driver for CUDA 13 on the host"


def test_a_container_without_nvml_still_tells_the_version_of_cuda(machine: Machine) -> None:
    machine.has_driver(CUDA_13, nvml=False)
    machine.answers("13.0", [], [], None)
    assert look("cuda")["driver"].found == "of unknown version, speaks CUDA 13.0"


def test_libraries_that_do_not_load_are_named(machine: Machine) -> None:
    machine.has_driver(CUDA_13)
    machine.answers("13.0", ["libcublas.so.13: no such file"], ["libcudart.so.13"], "expected a device, found: none")
    found = look("cuda")
    assert found["CUDA libraries"].state is State.FAULT
    assert "libcublas.so.13: no such file" in found["CUDA libraries"].found
    assert "onnxruntime-gpu[cuda,cudnn]" in found["CUDA libraries"].advice
    assert "nvidia.com/gpu: 1" in found["device"].advice


def test_the_wrong_flavour_is_named(machine: Machine) -> None:
    machine.has_driver(CUDA_13)
    machine.answers("", [], [], "expected CUDAExecutionProvider in ONNX Runtime, found CPUExecutionProvider")
    assert "pip uninstall --yes onnxruntime" in look("cuda")["device"].advice


def test_a_process_that_cuda_ends_is_named(machine: Machine) -> None:
    machine.has_driver(CUDA_13)
    machine.answers("13.0", end="ended by SIGSEGV")
    assert look("cuda")["ONNX Runtime"].found == "the process that tries CUDA ended by SIGSEGV"


def test_with_auto_what_keeps_a_gpu_from_being_used_is_a_note(machine: Machine) -> None:
    machine.has_driver(CUDA_12)
    machine.answers("13.0", ["libcublas.so.13: no such file"], [], "expected a device, found: none")
    assert {finding.state for finding in look("auto").values()} == {State.NOTE}


def test_a_driver_that_does_not_answer_is_a_fault_where_cuda_is_asked_for(machine: Machine) -> None:
    machine.has_driver(CUDA_13, code=3)
    machine.answers("13.0", [], [], "expected a device, found: none")
    assert look("cuda")["driver"].found == "libcuda.so.1: cuDriverGetVersion answered 3, expected 0"
    assert look("auto")["device"].state is State.OK
    assert list(look("cpu")) == ["device"]
