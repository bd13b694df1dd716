"""Each method learns something from a slice of the embedded sample, by the way that users take."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from training.cli import DONE, main
from training.data.sample import slice_to
from training.methods import METHODS

SMALL = {
    "mach": ("method.repetitions=4", "encoder.widths=[32]", "training.epochs=2"),
    "declare": ("method.rank=32", "encoder.widths=[32]", "training.epochs=1"),
    "ova": ("method.uniform_negatives=500", "encoder.widths=[32]", "training.epochs=1"),
    "unidec": ("method.dimensions=16", "method.pool_size=500", "encoder.widths=[32]", "training.epochs=1"),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("sample") / "slice"
    slice_to(folder, points=2000)
    return str(folder)


@pytest.mark.parametrize("method", METHODS)
def test_fit_and_evaluate(data: str, tmp_path: Path, method: str) -> None:
    out, file = str(tmp_path / "out"), tmp_path / "measures.json"
    options = ("training.batch_size=64", "vocabulary.words=3000", "vocabulary.subwords=1500", *SMALL[method])
    assert main(["fit", "--data", data, "--recipe", method, "--out", out, "--set", *options]) == DONE
    assert main(["evaluate", out, "--data", data, "--json", str(file)]) == DONE
    measures = json.loads(file.read_text())
    assert measures["R@100"] > 5  # of some 4,600 labels, so by chance 2
    history = [json.loads(line) for line in (tmp_path / "out" / "history.jsonl").read_text().splitlines()]
    assert history[-1]["loss"] <= history[0]["loss"]
