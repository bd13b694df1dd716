"""The import rule: training and service are strangers, export is the bridge, and importing does nothing but define.

Two views of the same rule. Fresh processes show what really gets loaded, directly or not; the source shows imports
inside functions, which a process that merely imports would not reach.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("service", "training", "model_export")

STRANGERS = {
    "service": {
        "training",
        "model_export",
        "torch",
        "transformers",
        "onnx",
        "onnxscript",
        "safetensors",
        "pyarrow",
        "ray",
    },
    "training": {"service", "model_export", "fastapi", "uvicorn", "onnx", "onnxruntime", "transformers", "ray"},
    "model_export": {"fastapi", "uvicorn"},
}
# A package may import what these extras install, and nothing that merely happens to be there.
EXTRAS = {
    "service": ("serve", "client", "grpc", "signing", "otel", "predictions", "plot", "monitoring", "ray", "cpu"),
    "training": ("train", "transformer", "ray", "cpu"),
    "model_export": ("serve", "train", "transformer", "export", "cpu"),
}
# Loaded on a GPU alone, whose flavour brings what they import; nothing else may load them when it is imported.
OF_GPU = "service.resident"
# Loaded with `--ray` alone.
OF_RAY = ("service.distributed", "training.distributed")
LATER = (OF_GPU, *OF_RAY)
MAY_IMPORT = {"service": {"service"}, "training": {"training"}, "model_export": set(PACKAGES)}

IMPORT_ALL = """
import importlib, json, sys, threading
for name in json.loads(sys.argv[1]):
    importlib.import_module(name)
print(json.dumps({"loaded": sorted(sys.modules),
                  "modules": sorted({name.partition(".")[0] for name in sys.modules}),
                  "threads": [thread.name for thread in threading.enumerate()]}))
"""


def module_names(package: str) -> list[str]:
    """Every module of a package, from its files; none is imported."""
    names = []
    for file in sorted((ROOT / package).rglob("*.py")):
        parts = file.relative_to(ROOT).with_suffix("").parts
        names.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return names


def imports(file: Path) -> Iterator[str]:
    """Top-level names of everything a file imports, wherever in the file it does so."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def declared(extras: tuple[str, ...]) -> set[str]:
    """Normalised names of the distributions that the base dependencies and some extras ask for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    requirements = project["dependencies"] + [
        line for extra in extras for line in project["optional-dependencies"][extra]
    ]
    return {normalised(re.split(r"[\[<>=!~; ]", line, maxsplit=1)[0]) for line in requirements}


def normalised(name: str) -> str:
    """A distribution's name in the one spelling that compares."""
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize("package", PACKAGES)
def test_importing_every_module_loads_no_stranger_prints_nothing_and_starts_nothing(package: str) -> None:
    names = [name for name in module_names(package) if not name.startswith(LATER)]
    command = [sys.executable, "-c", IMPORT_ALL, json.dumps(names)]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""
    *printed, answer = process.stdout.splitlines()
    assert printed == []
    found = json.loads(answer)
    assert set(LATER).isdisjoint(found["loaded"])
    assert STRANGERS[package].isdisjoint(found["modules"]), STRANGERS[package] & set(found["modules"])
    assert found["threads"] == ["MainThread"]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_import_is_allowed_and_declared(package: str) -> None:
    """Also those inside functions; a package that is imported but not declared would be missing from the image."""
    distributions = packages_distributions()
    wrong = []
    for file in sorted((ROOT / package).rglob("*.py")):
        on_gpu = file.is_relative_to(ROOT / OF_GPU.replace(".", "/"))
        allowed = declared((*EXTRAS[package], "gpu") if on_gpu else EXTRAS[package])
        for name in sorted(set(imports(file)) - sys.stdlib_module_names - MAY_IMPORT[package]):
            owners = {normalised(owner) for owner in distributions.get(name, [])}
            if name in PACKAGES or not owners & allowed:
                wrong.append(f"{file.relative_to(ROOT)} imports {name}")
    assert wrong == []
