"""What every test gets without asking: a clean environment, one Hypothesis profile, only the tests that can run."""

from __future__ import annotations

import os
import resource
import shutil

import pytest
from hypothesis import settings

from tests.image import machine

# Times on shared machines say nothing. CI draws the same examples every time; elsewhere each run tries new ones.
settings.register_profile("xmcserve", deadline=None, derandomize="CI" in os.environ, print_blob=True)
settings.load_profile("xmcserve")

LEFT_OUT = pytest.StashKey[list[str]]()


def pytest_configure() -> None:
    """Services in this process map files, and tests hold thousands of connections: many systems allow 1,024 files."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings of the developer's shell must not reach a test."""
    for name in os.environ:
        if name.startswith("XMC_"):
            monkeypatch.delenv(name)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave tests out of the run, rather than skip them, where what they need is not there."""
    config.stash[LEFT_OUT] = []
    for marker, look in (
        ("gpu", _missing_for_gpu),
        ("onnx_gpu", _missing_for_onnx_gpu),
        ("prometheus", _missing_for_prometheus),
        ("kubectl", _missing_for_kubectl),
        ("image", _missing_for_image),
    ):
        marked = [item for item in items if item.get_closest_marker(marker)]
        if marked and (missing := look()):
            items[:] = [item for item in items if item not in marked]
            config.hook.pytest_deselected(items=marked)
            config.stash[LEFT_OUT].append(f"{len(marked)} {marker} tests are left out: {missing}")


def pytest_report_collectionfinish(config: pytest.Config) -> list[str]:
    """Say what was left out, and why."""
    return config.stash.get(LEFT_OUT, [])


def _missing_for_prometheus() -> str:
    """Why tests with Prometheus cannot run here, or nothing when they can, or must: CI installs it."""
    missing = [program for program in ("prometheus", "promtool") if shutil.which(program) is None]
    if not missing or "CI" in os.environ:
        return ""
    return f"there is no {' and no '.join(missing)} (Debian: apt install prometheus)"


def _missing_for_kubectl() -> str:
    """Why tests of the Kubernetes files cannot run here, or nothing when they can, or must: CI installs it."""
    if shutil.which("kubectl") is not None or "CI" in os.environ:
        return ""
    return "there is no kubectl (CONTRIBUTING.md says where it can be had)"


def _missing_for_image() -> str:
    """Why no root of layers can be made here, or nothing when it can, or must: CI has what it takes."""
    return "" if "CI" in os.environ else machine.missing()


def _missing_for_gpu() -> str:
    """Why GPU tests cannot run here, or nothing when they can."""
    import torch

    return "" if torch.cuda.is_available() else "torch finds no CUDA device"


def _missing_for_onnx_gpu() -> str:
    """Why tests of what serves on a GPU cannot run here, or nothing when they can."""
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        return ""
    return "this ONNX Runtime is built without CUDA (install the gpu extra instead of cpu)"
