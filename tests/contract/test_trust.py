"""Nothing from a disk or a network is unpickled, evaluated or run."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("service", "training", "model_export")

# Pickles cross between two processes of the service alone, on sockets that nobody else has.
MAY_PICKLE = {"service/batching/channel.py"}
PICKLING = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
RUNNING = {"eval", "exec"}


def sources() -> Iterator[tuple[str, ast.Module]]:
    for package in PACKAGES:
        for file in sorted((ROOT / package).rglob("*.py")):
            yield str(file.relative_to(ROOT)), ast.parse(file.read_text(encoding="utf-8"))


def imported(node: ast.AST) -> set[str]:
    if isinstance(node, ast.Import):
        return {alias.name.partition(".")[0] for alias in node.names}
    if isinstance(node, ast.ImportFrom):
        return {(node.module or "").partition(".")[0]}
    return set()


def faults(tree: ast.Module) -> Iterator[str]:
    """What could run code out of data."""
    for node in ast.walk(tree):
        yield from sorted(f"line {node.lineno}: imports {name}" for name in imported(node) & PICKLING)  # type: ignore[attr-defined]
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        if given.get("allow_pickle", "False") != "False":
            yield f"line {node.lineno}: {called} allows pickles"
        if called == "torch.load" and given.get("weights_only") != "True":
            yield f"line {node.lineno}: torch.load unpickles"
        if called == "yaml.load" or called in RUNNING:
            yield f"line {node.lineno}: {called} runs what it reads"


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "def f():\n    from joblib import load",
        "import numpy as np\nnp.load(file, allow_pickle=True)",
        "torch.load(file)",
        "torch.load(file, weights_only=False)",
        "yaml.load(text)",
        "eval(text)",
    ],
)
def test_what_could_run_code_out_of_data_is_seen(source: str) -> None:
    assert list(faults(ast.parse(source)))


def test_nothing_could_run_code_out_of_data() -> None:
    found = {name: list(faults(tree)) for name, tree in sources()}
    assert [name for name, lines in found.items() if lines] == sorted(MAY_PICKLE), found
