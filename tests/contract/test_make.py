"""The Makefile and the pins: what it says of itself is true, and nothing is installed that is not pinned."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import subprocess
import tomllib
from importlib.metadata import distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.release.closure import closure, find_distributions

ROOT = Path(__file__).parents[2]
METHODS = ("mach", "declare", "unidec")
INSTALLED_EXTRAS = (
    "serve",
    "client",
    "grpc",
    "signing",
    "otel",
    "predictions",
    "monitoring",
    "train",
    "transformer",
    "ray",
    "export",
    "cpu",
    "dev",
)
# Builds of torch with CUDA bring these along at versions of torch's choosing.
LEFT_TO_TORCH = re.compile(r"^(nvidia-|cuda-|triton$|setuptools$)")


def make(*arguments: str, cwd: Path = ROOT, path: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run make, with the flags and variables of an outer make out of its sight; ``path`` replaces the search path."""
    outer = {"VENV", "PYTHON", "PORT", "QUERY"}
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("MAKE") and name not in outer
    }
    if path is not None:
        environment["PATH"] = path
    program = shutil.which("make")
    assert program is not None
    return subprocess.run([program, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def pins() -> dict[str, Version]:
    """Pinned version by canonical name."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if not line.startswith("#")]
    return {canonicalize_name(name): Version(text) for name, text in pairs}


def extra(name: str) -> list[str]:
    """The requirements of one extra of the project."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return list(project["optional-dependencies"][name])


def test_help_lists_every_command() -> None:
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert phony is not None
    listed = [line.split()[1] for line in make().stdout.splitlines()]
    assert sorted(listed) == sorted(phony[1].split())


@pytest.mark.parametrize("command", ["make serve", "make demo", "make test"])
def test_the_readme_names_the_commands(command: str) -> None:
    assert command in (ROOT / "README.md").read_text(encoding="utf-8")


def test_ci_calls_the_test_command_of_the_readme() -> None:
    assert "make test" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_constraints_pin_every_dependency() -> None:
    lines = ["numpy", "pydantic", *(line for name in INSTALLED_EXTRAS for line in extra(name))]
    missing = {
        name for name in closure(lines, find_distributions()).keys() - pins().keys() if not LEFT_TO_TORCH.match(name)
    }
    assert missing == set()


def test_constraints_pin_the_gpu_flavour() -> None:
    """Its packages are not installed beside the CPU flavour's, so only the names can be checked."""
    assert {canonicalize_name(Requirement(line).name) for line in extra("gpu")} <= pins().keys()


def test_installed_versions_are_the_pinned_ones() -> None:
    """The local part (as in 2.13.0+cpu) names the build, not the version."""
    installed = {canonicalize_name(item.name): Version(item.version.partition("+")[0]) for item in distributions()}
    shared = installed.keys() & pins().keys()
    assert {name: installed[name] for name in shared} == {name: pins()[name] for name in shared}


@pytest.mark.parametrize("method", METHODS)
def test_serve_trains_exports_and_serves_every_method(method: str, tmp_path: Path) -> None:
    """From nothing: the plan holds all steps, in order."""
    plan = plan_in(tmp_path, "serve").stdout
    steps = [
        f"xmc-train fit --data sample --method {method} --out build/artifacts/{method} --resume",
        f"xmc-export build build/artifacts/{method} --out build/bundles/{method}",
        f"--bundle build/bundles/{method}",
    ]
    places = [plan.index(step) for step in steps]
    assert places == sorted(places)


def test_a_finished_bundle_is_not_made_again(tmp_path: Path) -> None:
    """Also when its artifact is gone, which only training needs."""
    for method in METHODS:
        bundle = tmp_path / "build" / "bundles" / method
        bundle.mkdir(parents=True)
        (bundle / "manifest.json").touch()
    plan = plan_in(tmp_path, "demo").stdout
    assert "xmc-train" not in plan
    assert "xmc-export" not in plan
    assert "service.demo" in plan
    assert "pip install" in plan


def test_the_query_to_try_is_of_the_test_split() -> None:
    """No model has seen it, so its answers are not remembered ones."""
    query = re.search(r"^QUERY \?= (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert query is not None
    with gzip.open(ROOT / "training" / "data" / "sample" / "tst.json.gz", "rt", encoding="utf-8") as lines:
        assert query[1] in {json.loads(line)["title"] for line in lines}


def test_old_python_is_refused_with_a_sentence(tmp_path: Path) -> None:
    old = tmp_path / "python-old"
    old.write_text('#!/bin/sh\ncase "$1" in --version) echo Python 3.9.2;; *) exit 1;; esac\n', encoding="utf-8")
    old.chmod(0o755)
    for name in ("python3.11", "python3.12", "python3.13", "python3.14"):
        (tmp_path / name).symlink_to(old)
    venv = tmp_path / "venv"
    process = make(f"PYTHON={old}", f"VENV={venv}", f"{venv}/.installed", path=str(tmp_path))
    assert process.returncode != 0
    assert f"Python 3.11 or newer is needed, but {old} is: Python 3.9.2" in process.stderr
    assert not venv.exists()


def plan_in(folder: Path, target: str) -> subprocess.CompletedProcess[str]:
    """What make would do for a target in a fresh checkout."""
    for name in ("Makefile", "constraints.txt", "pyproject.toml"):
        (folder / name).symlink_to(ROOT / name)
    process = make("--dry-run", target, cwd=folder)
    assert process.returncode == 0, process.stderr
    return process
