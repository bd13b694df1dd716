"""The checkpoint: exact round trip of weights and optimiser, replaced at once, and no pickle anywhere a run writes."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from torch import nn
from torch.optim import AdamW

from tests.training.synthetic import load, tiny
from training.checkpoint import Progress, load_checkpoint, save_checkpoint, save_tensors, temporary_beside
from training.loop import fit


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.EmbeddingBag(5, 4, mode="sum"), nn.Linear(4, 3))


def optimiser_of(model: nn.Module) -> AdamW:
    first, second = model.children()
    return AdamW([{"params": first.parameters(), "lr": 0.1}, {"params": second.parameters(), "lr": 0.01}], fused=True)


def step(model: nn.Module, optimiser: AdamW, seed: int) -> None:
    torch.manual_seed(seed)
    optimiser.zero_grad()
    model(torch.randint(5, (6, 2))).square().sum().backward()
    optimiser.step()


def test_a_loaded_run_steps_exactly_as_the_saved_one(tmp_path: Path) -> None:
    model = network(0)
    optimiser = optimiser_of(model)
    for seed in range(3):
        step(model, optimiser, seed)
    renewed = {"table": torch.arange(4)}
    save_checkpoint(tmp_path / "c", model, [optimiser], Progress(epoch=7, best=51.25, best_epoch=5), renewed)
    other = network(1)
    loaded = optimiser_of(other)
    progress, tensors = load_checkpoint(tmp_path / "c", other, [loaded])
    assert progress == Progress(epoch=7, best=51.25, best_epoch=5)
    assert tensors.keys() == renewed.keys()
    assert torch.equal(tensors["table"], renewed["table"])
    left, right = optimiser.state_dict()["state"], loaded.state_dict()["state"]
    assert left.keys() == right.keys()
    for index, moments in left.items():
        assert moments.keys() == right[index].keys() == {"step", "exp_avg", "exp_avg_sq"}
        for name, value in moments.items():
            assert torch.equal(value, right[index][name])
            assert value.dtype == right[index][name].dtype
    for seed in (10, 11):
        step(model, optimiser, seed)
        step(other, loaded, seed)
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, other.state_dict()[name])


def test_rates_are_those_of_the_new_run_not_of_the_file(tmp_path: Path) -> None:
    model = network(0)
    optimiser = optimiser_of(model)
    step(model, optimiser, 0)
    for group in optimiser.param_groups:
        group["lr"] = 0.0
    save_checkpoint(tmp_path / "c", model, [optimiser], Progress(), {})
    loaded = optimiser_of(model)
    load_checkpoint(tmp_path / "c", model, [loaded])
    assert [group["lr"] for group in loaded.param_groups] == [0.1, 0.01]


def test_nothing_yet_is_a_progress_too(tmp_path: Path) -> None:
    model = network(0)
    save_checkpoint(tmp_path / "c", model, [optimiser_of(model)], Progress(), {})
    assert load_checkpoint(tmp_path / "c", model, [optimiser_of(model)])[0].best == float("-inf")


def test_a_failing_save_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    save_tensors(path, {"one": torch.ones(3)})
    before = path.read_bytes()
    shared = torch.ones(4)
    with pytest.raises(RuntimeError, match="share memory"):
        save_tensors(path, {"one": shared, "two": shared})
    assert path.read_bytes() == before


def test_no_two_processes_write_the_same_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that was taken for dead and its successor, on one machine or on two."""
    here = temporary_beside(Path("a/b"))
    assert here.parent == Path("a")
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: -1)
        other_process = temporary_beside(Path("a/b"))
    monkeypatch.setattr(socket, "gethostname", lambda: "elsewhere")
    assert len({here, other_process, temporary_beside(Path("a/b"))}) == 3


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    save_tensors(path, {"one": torch.ones(3)})
    before = path.read_bytes()
    temporary_beside(tmp_path / "weights").mkdir()
    with pytest.raises((OSError, SafetensorError)):
        save_tensors(path, {"one": torch.zeros(3)})
    assert path.read_bytes() == before


def files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


@pytest.mark.parametrize("method", ["mach", "declare", "unidec", "ova"])
def test_no_file_of_a_run_is_a_pickle(texts: Path, tmp_path: Path, method: str) -> None:
    """Each is JSON, a plain array or safetensors, by its first bytes."""
    seen: set[str] = set()

    def look(line: str) -> None:
        for file in files(tmp_path):
            seen.add(file.name)
            assert_plain(file)

    dataset, run = load(texts, tiny(method))
    fit(run, dataset, tmp_path / "out", resume=False, log=look)
    assert {"run.json", "checkpoint.safetensors", "best.safetensors", "history.jsonl"} <= seen
    written = list(files(tmp_path / "out"))
    assert {file.suffix for file in written} - {".npy"} == {".json", ".jsonl", ".safetensors"}
    for file in written:
        assert_plain(file)


def assert_plain(file: Path) -> None:
    data = file.read_bytes()
    match file.suffix:
        case ".json":
            json.loads(data)
        case ".jsonl":
            assert all(json.loads(line) is not None for line in data.splitlines())
        case ".npy":
            header = data[: data.index(b"\n")]
            assert header.startswith(b"\x93NUMPY")
            assert b"'descr': '<" in header  # '|O' would be pickled objects
        case ".safetensors":
            length = int.from_bytes(data[:8], "little")
            json.loads(data[8 : 8 + length])
        case _:
            raise AssertionError(f"what is {file}?")
