"""Steps from several batches, and steps in half precision."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from tests.training.synthetic import load, tiny, tiny_transformer
from tests.training.test_loop import history
from training.checkpoint import Progress, load_checkpoint, save_checkpoint
from training.loop import RunError, check_device, fit
from training.methods import METHODS
from training.recipes import RunConfig, TrainingConfig


def without_dropout(run: RunConfig) -> RunConfig:
    return run.model_copy(update={"encoder": run.encoder.model_copy(update={"dropout": 0.0})})


def weights(texts: Path, out: Path, run: RunConfig) -> dict[str, torch.Tensor]:
    dataset, resolved = load(texts, run)
    fit(resolved, dataset, out, resume=False, log=print)
    return load_file(out / "model.safetensors")


@pytest.mark.parametrize("method", ["mach", "declare"])
def test_accumulated_batches_are_one_larger_batch(texts: Path, tmp_path: Path, method: str) -> None:
    """Their losses average over rows, so three batches of 6, the last of 3, make the step of one batch of 15."""
    options = {"epochs": 3, "learning_rate": 1e-3, "selection": "nDCG@5"}
    whole = weights(texts, tmp_path / "whole", without_dropout(tiny(method, batch_size=18, **options)))
    parts = weights(texts, tmp_path / "parts", without_dropout(tiny(method, batch_size=6, accumulate=3, **options)))
    for name, weight in whole.items():
        # AdamW's steps have the size of the rate whatever the gradient's: rounding can turn a few that are almost 0.
        close = torch.isclose(weight, parts[name], rtol=1e-3, atol=1e-5).float().mean()
        assert close > 0.99, name
    for one, other in zip(history(tmp_path / "whole"), history(tmp_path / "parts"), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_half_precision_learns_as_full_does(texts: Path, tmp_path: Path, method: str) -> None:
    losses = {}
    for precision in ("fp32", "bf16"):
        run = without_dropout(tiny(method, epochs=4, precision=precision))
        assert all(weight.dtype == torch.float32 for weight in weights(texts, tmp_path / precision, run).values())
        losses[precision] = [line["loss"] for line in history(tmp_path / precision)]
    # Later epochs may go other ways: other labels are mined.
    assert losses["bf16"][0] == pytest.approx(losses["fp32"][0], rel=0.05)
    assert losses["bf16"] != losses["fp32"]
    assert losses["bf16"][-1] < losses["bf16"][0]


def test_a_transformer_runs_in_half_precision(texts: Path, tmp_path: Path) -> None:
    """And is measured, as it will be served, in full."""
    kinds = {}
    for precision in ("fp32", "bf16"):
        dataset, run = load(texts, tiny_transformer("unidec", epochs=1, precision=precision))
        fit(run, dataset, tmp_path / precision, resume=False, log=print)
        kinds[precision] = [line["loss"] for line in history(tmp_path / precision)]
    assert kinds["bf16"] != kinds["fp32"]
    assert kinds["bf16"] == pytest.approx(kinds["fp32"], rel=0.05)


def test_fp16_needs_a_cuda_device(texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    run = tiny("mach", precision="fp16")
    dataset, resolved = load(texts, run)
    with pytest.raises(RunError, match=r"training\.precision fp16: expected a CUDA device, found none"):
        fit(resolved, dataset, tmp_path / "out", resume=False, log=print)
    assert not list(tmp_path.iterdir())
    check_device(TrainingConfig(precision="bf16"))


def test_the_scale_of_the_loss_is_kept(tmp_path: Path) -> None:
    model = torch.nn.Linear(2, 1)
    optimiser = torch.optim.AdamW(model.parameters())
    progress = Progress(epoch=2, best=0.5, best_epoch=1, scaler={"scale": 1024.0, "_growth_tracker": 7})
    save_checkpoint(tmp_path / "checkpoint", model, [optimiser], progress, {})
    assert load_checkpoint(tmp_path / "checkpoint", model, [optimiser])[0] == progress
    with safe_open(tmp_path / "checkpoint", framework="pt") as file:
        assert json.loads(file.metadata()["progress"])["scaler"]["scale"] == 1024.0


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("method", METHODS)
def test_half_precision_on_a_gpu(texts: Path, tmp_path: Path, method: str, precision: str) -> None:
    losses = {}
    for kind in ("fp32", precision):
        run = tiny_transformer(method, epochs=14 if method == "unidec" else 3, precision=kind)
        dataset, resolved = load(texts, run)
        fit(resolved, dataset, tmp_path / kind, resume=False, log=print)
        losses[kind] = [line["loss"] for line in history(tmp_path / kind)]
    assert losses[precision] != losses["fp32"]
    if method == "unidec":
        # It rises at first, in fp16 two epochs later, when the scale of the gradients is found, and falls in leaps.
        assert all(min(of_kind) < of_kind[0] / 4 for of_kind in losses.values())
    else:
        assert losses[precision][-1] == pytest.approx(losses["fp32"][-1], rel=0.2)


@pytest.mark.gpu
def test_a_run_in_fp16_is_resumed_with_its_scale(texts: Path, tmp_path: Path) -> None:
    from tests.training.test_resume import EPOCHS, resume, stop_after

    run = tiny("mach", epochs=EPOCHS, precision="fp16")
    weights(texts, tmp_path / "whole", run)
    stop_after(2, texts, tmp_path / "stopped", run)
    resume(texts, tmp_path / "stopped", run)
    # Not to the bit: a GPU adds up the gradients of an embedding's rows in any order.
    assert history(tmp_path / "stopped") == [
        {name: pytest.approx(value, rel=1e-3) for name, value in line.items()} for line in history(tmp_path / "whole")
    ]
    whole, stopped = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "stopped"))
    for name, weights_of_whole in whole.items():
        torch.testing.assert_close(stopped[name], weights_of_whole, rtol=1e-2, atol=1e-4)
