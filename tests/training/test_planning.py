"""The plan of a dry run: figures of the model that would be trained, without making it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.synthetic import feature_dataset, load, tiny
from training.artifact import new_model
from training.methods.base import Shape
from training.parts import fit
from training.planning import MIB, Peak, expected_peak, plan
from training.recipes import RECIPES, augmented
from training.reranker import RerankerConfig


def line(lines: list[str], name: str) -> str:
    return next(line for line in lines if line.startswith(f"{name} "))


@pytest.mark.parametrize("recipe", RECIPES)
def test_figures_are_those_of_the_run(texts: Path, tmp_path: Path, recipe: str) -> None:
    dataset, run = load(texts, tiny(recipe))
    lines = plan(run, dataset, expected_peak(run, dataset))
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
    peak = expected_peak(run, dataset)
    lines = plan(run, dataset, peak)
    # B = 2^round(log2(6 sqrt(10^6))) = 8192 buckets, 16 times, above one layer of 4096: the embeddings dominate.
    parameters = width * 4096 + 4096 + 4096 * 16 * 8192 + 16 * 8192
    assert f" {parameters:,} parameters" in line(lines, "weights")
    assert peak.parts["weights, gradients and moments"] == 4 * 4 * parameters
    assert f"about {peak.bytes / MIB:,.0f} MiB while {peak.moment}: " in line(lines, "memory")


@pytest.mark.parametrize(("reranker", "said"), [(None, "those of one"), (RerankerConfig(), "takes if that is more")])
def test_what_follows_the_parts_counts_too(texts: Path, reranker: RerankerConfig | None, said: str) -> None:
    dataset, run = load(texts, tiny("mach-independent").model_copy(update={"reranker": reranker}))
    assert line(plan(run, dataset, expected_peak(run, dataset)), "parts").endswith(said)


def test_on_a_gpu_the_line_says_so(texts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, run = load(texts, tiny("mach"))
    peak = expected_peak(run, dataset)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert "GPU" not in line(plan(run, dataset, peak), "memory")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert line(plan(run, dataset, peak), "memory").endswith("; all but libraries and rows on the GPU")


def test_parts_of_a_peak_add_up() -> None:
    peak = Peak("reading", {"libraries and rows": 300 * MIB, "texts": 12 * MIB})
    assert peak.bytes == 312 * MIB
    assert str(peak) == "about 312 MiB while reading: libraries and rows 300, texts 12"


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_wider_encoder_takes_more(texts: Path, recipe: str) -> None:
    """A layer of a million units, which nothing else can hide."""
    dataset, run = load(texts, tiny(recipe))
    dataset = augmented(run, dataset)
    wide = run.model_copy(update={"encoder": run.encoder.model_copy(update={"widths": (1_000_000,)})})
    assert expected_peak(wide, dataset).bytes > expected_peak(run, dataset).bytes + 10**6 * 4 * 4 * 10
