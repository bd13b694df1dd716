"""The plan of a dry run: figures of the model that would be trained, without making it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.training.synthetic import feature_dataset, load, tiny
from training.artifact import new_model
from training.methods.base import Shape
from training.parts import fit
from training.planning import plan
from training.recipes import RECIPES


def line(lines: list[str], name: str) -> str:
    return next(line for line in lines if line.startswith(f"{name} "))


@pytest.mark.parametrize("recipe", RECIPES)
def test_figures_are_those_of_the_run(texts: Path, tmp_path: Path, recipe: str) -> None:
    dataset, run = load(texts, tiny(recipe))
    lines = plan(run, dataset)
    parts = 4 if recipe == "mach-independent" else 1
    assert any(line.startswith(f"parts      {parts};") for line in lines) == (parts > 1)
    parameters = sum(weight.numel() for weight in new_model(run, Shape.of(dataset)).parameters())
    assert f" {parameters:,} parameters" in line(lines, "weights")
    rows, held = len(dataset.train), len(dataset.validation)
    expected = f"{rows:,} training rows, {held:,} validation rows, 8 labels, {dataset.input_width:,} tokens"
    assert expected in line(lines, "data")
    assert f"2 epochs of {-(-rows // (run.training.batch_size or 1))}" in line(lines, "steps")
    assert run.method.model_dump_json() in line(lines, "method")
    fit(run, dataset, tmp_path / "out", resume=False, log=lambda _: None)  # the figures are of a run that works


def test_a_model_far_too_large_for_this_machine_is_planned_at_once() -> None:
    width, labels = 50_000_000, 1_000_000
    dataset = feature_dataset([{0: 1.0}, {1: 1.0}], [{0: 1.0, 1: 1.0}, {}], width=width, labels=labels)
    run = RECIPES["mach"]().resolved(Shape.of(dataset))
    lines = plan(run, dataset)
    # B = 2^round(log2(6 sqrt(10^6))) = 8192 buckets, 16 times, above one layer of 4096: the embeddings dominate.
    parameters = width * 4096 + 4096 + 4096 * 16 * 8192 + 16 * 8192
    assert f" {parameters:,} parameters" in line(lines, "weights")
    total, rows, weights, step = (
        int(figure.replace(",", "")) for figure in re.findall(r"[\d,]*\d", line(lines, "memory"))
    )
    assert weights == pytest.approx(4 * 4 * parameters / 2**20, abs=1)
    assert total == pytest.approx(rows + weights + step, abs=2)
    assert step > 0
