"""Runs on a transformer: frozen ones read each row once, others train every weight, and artifacts need nothing else."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from torch import Tensor

from tests.training.synthetic import MINILM, load, tiny_transformer
from tests.training.test_resume import assert_same_artifact, stop_after
from training.artifact import read_artifact
from training.data.batches import Bags
from training.encoders import TransformerConfig, TransformerEncoder
from training.encoders.pretrained import load_weights, new_transformer
from training.loop import fit
from training.methods import METHODS
from training.methods.mach import MachConfig
from training.planning import expected_peak, plan
from training.recipes import RECIPES, RunConfig
from training.vocabulary import VocabularyConfig

INNER = ".transformer."


def pretrained_weights() -> dict[str, Tensor]:
    """The first layer's, as the package ships them."""
    config = TransformerConfig(model=MINILM).resolved()
    assert config.architecture is not None
    made = new_transformer(config.architecture, 1)
    load_weights(made, Path(MINILM))
    return made.state_dict()


def inner_weights(artifact: Path) -> dict[str, Tensor]:
    weights = load_file(artifact / "model.safetensors")
    return {name.partition(INNER)[2]: weight for name, weight in weights.items() if INNER in name}


@pytest.mark.parametrize("method", METHODS)
def test_a_frozen_transformer_reads_each_row_once_and_stays_as_it_was(
    texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    dataset, run = load(texts, tiny_transformer(method, {"frozen": True, "widths": (6,)}, epochs=3))
    seen: Counter[tuple[int, ...]] = Counter()
    pool = TransformerEncoder.pool

    def noted(self: TransformerEncoder, ids_QT: Tensor, filled_QT: Tensor) -> Tensor:
        seen.update(tuple(ids[filled].tolist()) for ids, filled in zip(ids_QT, filled_QT, strict=True))
        return pool(self, ids_QT, filled_QT)

    monkeypatch.setattr(TransformerEncoder, "pool", noted)
    fit(run, dataset, tmp_path / "out", resume=False, log=print)
    parts = [dataset.train.inputs, dataset.validation.inputs, *([dataset.label_bags] if method == "unidec" else [])]
    assert seen.total() == sum(part.shape[0] for part in parts)
    before, after = pretrained_weights(), inner_weights(tmp_path / "out")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("method", METHODS)
def test_a_transformer_that_is_not_frozen_learns_in_every_weight(texts: Path, tmp_path: Path, method: str) -> None:
    dataset, run = load(texts, tiny_transformer(method, epochs=1))
    fit(run, dataset, tmp_path / "out", resume=False, log=print)
    before, after = pretrained_weights(), inner_weights(tmp_path / "out")
    assert before.keys() == after.keys()
    assert [name for name in before if torch.equal(before[name], after[name])] == []


@pytest.mark.parametrize("frozen", [True, False])
def test_a_resumed_run_ends_as_an_uninterrupted_one(texts: Path, tmp_path: Path, frozen: bool) -> None:
    run = tiny_transformer("unidec", {"frozen": frozen, "dropout": 0.1}, epochs=4)
    dataset, resolved = load(texts, run)
    fit(resolved, dataset, tmp_path / "whole", resume=False, log=print)
    stop_after(2, texts, tmp_path / "stopped", run)
    dataset, resolved = load(texts, run)
    fit(resolved, dataset, tmp_path / "stopped", resume=True, log=print)
    assert_same_artifact(tmp_path / "whole", tmp_path / "stopped")


def test_an_artifact_needs_nothing_of_the_models_folder(texts: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(MINILM, folder, copy_function=lambda source, target: Path(target).symlink_to(source))
    dataset, run = load(texts, tiny_transformer("mach", {"model": str(folder)}, epochs=1))
    fit(run, dataset, tmp_path / "out", resume=False, log=print)
    artifact = read_artifact(tmp_path / "out")
    bags = Bags.from_csr(dataset.validation.inputs)
    with torch.no_grad():
        before = artifact.restore().score(bags)
        shutil.rmtree(folder)
        again = read_artifact(tmp_path / "out")
        assert torch.equal(again.restore().score(bags), before)
    assert again.tokenizer is not None
    assert again.tokenizer.truncation is None
    assert again.tokenizer.padding is None


def test_the_plan_says_what_is_frozen(texts: Path) -> None:
    lines = {}
    for frozen in (True, False):
        dataset, run = load(texts, tiny_transformer("mach", {"frozen": frozen}))
        lines[frozen] = plan(run, dataset, expected_peak(run, dataset))
    weights = sum(weight.numel() for weight in pretrained_weights().values())
    assert f"({weights:,} of them frozen)" in "\n".join(lines[True])
    assert "frozen)" not in "\n".join(lines[False])
    assert not any("hidden_act" in line for line in lines[True])


def test_a_transformer_brings_its_own_tokenizer_and_a_bag_needs_one() -> None:
    own = RunConfig(method=MachConfig(), encoder=TransformerConfig())
    assert own.vocabulary is None
    assert own.texts is own.encoder
    assert RunConfig(method=MachConfig()).texts == VocabularyConfig()
    for options in ({"encoder": TransformerConfig(), "vocabulary": VocabularyConfig()}, {"vocabulary": None}):
        with pytest.raises(ValidationError, match="a transformer brings its own tokenizer"):
            RunConfig(method=MachConfig(), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("recipe", ["mach-frozen", "unidec-transformer"])
def test_recipes_on_transformers_say_how_their_model_is_had(recipe: str) -> None:
    assert "--set encoder.model=FOLDER" in (RECIPES[recipe].__doc__ or "")
    assert isinstance(RECIPES[recipe]().encoder, TransformerConfig)
