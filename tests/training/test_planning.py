"""The plan of a dry run: figures of the model that would be trained, without making it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.training.synthetic import feature_dataset, load, tiny
from training.artifact import new_model
from training.data.dataset import Dataset
from training.methods.base import Model, Shape
from training.parts import fit
from training.planning import MIB, Peak, expected_peak, expected_worker_peak, plan
from training.recipes import RECIPES, RunConfig, augmented
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


@pytest.mark.parametrize("recipe", ["unidec", "ova"])
def test_a_worker_has_its_share_of_rows_and_labels(recipe: str) -> None:
    """Half of a classifier, its gradients and moments each, and all of it for a checkpoint."""
    labels = 200_000
    dataset = feature_dataset([{0: 1.0}] * 1000, [{0: 1.0}] * 1000, width=5, labels=labels)
    run = RECIPES[recipe]().resolved(Shape.of(dataset))
    if run.method.name == "unidec":
        run = run.model_copy(update={"method": run.method.model_copy(update={"encoder_weight": 0.0})})
    peaks = [expected_worker_peak(run, dataset, workers) for workers in (2, 4)]
    floats = sum(weight.numel() for weight in new_model_on_meta(run, dataset).label_rows())
    kept = 2 if recipe == "unidec" else 1 / (floats / labels)
    gradients = 1 if recipe == "unidec" else 0
    for workers, peak in zip((2, 4), peaks, strict=True):
        learned = peak.parts["weights, gradients and moments"]
        assert learned == pytest.approx(4 * (1 + gradients + kept) * floats / workers, rel=0.02)
        assert peak.parts["what others have"] == pytest.approx(4 * (1 + kept) * floats, rel=0.02)
    assert peaks[0].parts["scores"] > 1.5 * peaks[1].parts["scores"]


def new_model_on_meta(run: RunConfig, dataset: Dataset) -> Model:
    with torch.device("meta"):
        return new_model(run, Shape.of(dataset))


def test_rows_that_other_workers_have_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.memory.resident_bytes", lambda: 10**9)
    cells = [dict.fromkeys(range(1000), 1.0)] * 500
    dataset = feature_dataset(cells, [{0: 1.0}] * 500, width=1000, labels=2)
    run = RECIPES["ova"]().resolved(Shape.of(dataset))
    rows = dataset.train.inputs.data.nbytes + dataset.train.inputs.indices.nbytes
    most, least = (expected_worker_peak(run, dataset, workers).parts["libraries and rows"] for workers in (1, 4))
    assert most == 10**9
    assert most - least == pytest.approx(3 / 4 * rows, rel=0.01)


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
