"""Every option of a run changes what comes out of it: a table that must name each of them, and a run for each.

What exactly an option does is tested beside its code; here only that none is ignored on the way from the configuration
to the artifact.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import BaseModel
from safetensors.torch import load_file, save_file

from tests.training.synthetic import MINILM, in_two_lines, load, tiny, tiny_transformer
from tests.training.test_loop import history
from training.artifact import read_artifact
from training.data.batches import Bags
from training.encoders import BagConfig, TransformerConfig
from training.loop import fit
from training.methods import METHODS
from training.methods.base import Shape
from training.recipes import RECIPES, RunConfig, TrainingConfig
from training.vocabulary import VocabularyConfig

# Per section, every option with a value other than that of the tiny runs.
OPTIONS: dict[str, dict[str, Any]] = {
    "mach": {
        "repetitions": 3,
        "buckets": 5,
        "assignment": "balanced",
        "repartition_every": 1,
        "repartition_candidates": 5,
        "networks": "independent",
        "aggregation": "min",
        "loss": "softmax",
    },
    "declare": {
        "rank": 3,
        "neighbours": 2,
        "loss": "squared",
        "rows": "given",
        "scaling": "column",
        "compression": "neighbours",
        "tail_weighting": 1.5,
        "similarity": "inner_product",
        "vote_temperature": 0.5,
    },
    "unidec": {
        "dimensions": 6,
        "dropout": 0.5,
        "label_projection": "own",
        "encoder_weight": 0.9,
        "encoder_loss": "supcon",
        "classifier_loss": "decoupled_softmax+bce",
        "symmetric": False,
        "symmetric_classifier": True,
        "logit_scale": 5.0,
        "positives_per_query": 3,
        "hard_negatives": 1,
        "pool_size": 3,
        "fill": "positives",
        "clusters": False,
        "start_epoch": 1,
        "refresh": 1,
        "classifier_rate": 9.0,
        "inference": "encoder",
    },
    "ova": {
        "negatives": "all",
        "uniform_negatives": 5,
        "hard_negatives": 2,
        "hard_from": 1,
        "refresh_every": 1,
        "weights_kept": 20,
    },
    "encoder": {"widths": [6], "dropout": 0.5, "table_updates": "rows", "scale": 0.5, "hashed_width": 10},
    "vocabulary": {
        "words": 3,
        "min_count": 40,
        "subwords": 45,
        "max_tokens": 2,
        "max_label_tokens": 1,
        "heading_weight": 2.0,
    },
    "transformer": {
        "model": "the folder of `other_model`",
        "pooling": "cls",
        "layers": 2,
        "frozen": True,
        "widths": [6],
        "dropout": 0.5,
        "max_tokens": 5,
        "max_label_tokens": 3,
    },
    "training": {
        "epochs": 3,
        "rows_seen": 5000,
        "batch_size": 7,
        "learning_rate": 0.02,
        "table_rate": 3.0,
        "adagrad_rate": 0.2,
        "encoder_rate": 3.0,
        "weight_decay": 0.5,
        "schedule": "constant",
        "warmup": 0.5,
        "validation_fraction": 0.5,
        "selection": "PSP@1",
        "seed": 1,
        "accumulate": 2,
        "precision": "bf16",
    },
}
# Options that say nothing by themselves, and what both runs have set beside them.
BESIDE: dict[tuple[str, str], dict[str, Any]] = {("mach", "repartition_candidates"): {"repartition_every": 1}}
SECTIONS: dict[str, type[BaseModel]] = {
    **{name: method.Config for name, method in METHODS.items()},
    "encoder": BagConfig,
    "vocabulary": VocabularyConfig,
    "transformer": TransformerConfig,
    "training": TrainingConfig,
}
# Which union member it is; and what a transformer's folder says of it, which a run writes down.
TAGS = {"name", "kind", "architecture"}
# Selection changes nothing where all measures agree (see test_loop), and rows_seen nothing where epochs are given.
ELSEWHERE = {("training", "selection"), ("training", "rows_seen")}
CASES = [(section, option) for section, options in OPTIONS.items() for option in options]


@pytest.mark.parametrize("section", SECTIONS)
def test_the_table_names_every_option(section: str) -> None:
    assert set(OPTIONS[section]) == set(SECTIONS[section].model_fields) - TAGS


def changed(run: RunConfig, section: str, option: str) -> RunConfig:
    """The run with one option set as a user would set it, checked by the models."""
    values = run.model_dump()
    options = values["method" if section in METHODS else {"transformer": "encoder"}.get(section, section)]
    assert options[option] != OPTIONS[section][option], "the table must name another value than that of the tiny run"
    options[option] = OPTIONS[section][option]
    return RunConfig.model_validate(values)


def outcome(folder: Path, out: Path, run: RunConfig) -> str:
    """Digest of all that a run leaves for the exporter, its configuration aside, and of the scores the model gives."""
    dataset, resolved = load(folder, run)
    fit(resolved, dataset, out, resume=False, log=print)
    artifact = read_artifact(out)
    digest = hashlib.sha256(json.dumps(history(out)).encode())
    names = ("model.safetensors", "tokenizer.json", "samples.jsonl")
    for file in (*(out / name for name in names), *sorted((out / "tables").iterdir())):
        digest.update(file.read_bytes())
    with torch.no_grad():
        digest.update(artifact.restore().score(Bags.from_csr(dataset.validation.inputs[:5])).numpy().tobytes())
    return digest.hexdigest()


@pytest.mark.parametrize(("rows_seen", "epochs"), [(1, 3), (9_000, 9), (9_600, 10), (10**6, 40)])
def test_option_rows_seen(rows_seen: int, epochs: int) -> None:
    shape = Shape(input_width=10, label_count=5, train_rows=1000, text=True, single_label=False)
    assert TrainingConfig(rows_seen=rows_seen).resolved(shape).epochs == epochs
    assert TrainingConfig(rows_seen=rows_seen, epochs=7).resolved(shape).epochs == 7


def recipe_of(section: str, option: str) -> str:
    """A method that the option concerns."""
    if option == "max_label_tokens":
        return "unidec"
    if option == "adagrad_rate":
        return "ova"
    return section if section in METHODS else "mach"


@pytest.fixture(scope="module")
def usual(texts: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Outcomes of the unchanged runs."""
    folder = tmp_path_factory.mktemp("usual")
    return {name: outcome(texts, folder / name, tiny(name)) for name in METHODS}


@pytest.mark.parametrize("method", METHODS)
def test_without_a_change_the_outcome_is_the_same(
    texts: Path, tmp_path: Path, usual: dict[str, str], method: str
) -> None:
    """Else the differences below would show nothing."""
    assert outcome(texts, tmp_path / "again", tiny(method)) == usual[method]


@pytest.mark.parametrize(
    ("section", "option"), [case for case in CASES if case not in ELSEWHERE and case[0] != "transformer"]
)
def test_no_option_is_ignored(texts: Path, tmp_path: Path, usual: dict[str, str], section: str, option: str) -> None:
    folder, name = texts, recipe_of(section, option)
    run, expected = tiny(name), usual[name]
    if (section, option) == ("mach", "loss"):
        folder = one_label_a_point(texts, tmp_path / "data")
        expected = outcome(folder, tmp_path / "auto", with_bce(run))
    if option == "heading_weight":
        folder = in_two_lines(texts, tmp_path / "data")
        expected = outcome(folder, tmp_path / "headed", run)
    if (section, option) in BESIDE:
        run = run.model_copy(update={"method": run.method.model_copy(update=BESIDE[section, option])})
        expected = outcome(folder, tmp_path / "beside", run)
    assert outcome(folder, tmp_path / "out", changed(run, section, option)) != expected


@pytest.fixture(scope="module")
def usual_transformer(texts: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Outcome of the unchanged run on a transformer."""
    return outcome(texts, tmp_path_factory.mktemp("usual") / "transformer", tiny_transformer("unidec"))


@pytest.mark.parametrize("option", OPTIONS["transformer"])
def test_no_option_of_a_transformer_is_ignored(
    texts: Path, tmp_path: Path, usual_transformer: str, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    monkeypatch.setitem(OPTIONS["transformer"], "model", str(other_model(tmp_path / "model")))
    run = changed(tiny_transformer("unidec"), "transformer", option)
    assert outcome(texts, tmp_path / "out", run) != usual_transformer


def other_model(folder: Path) -> Path:
    """The same model with other weights in one of its layers."""
    folder.mkdir()
    for name in ("config.json", "tokenizer.json"):
        (folder / name).symlink_to(Path(MINILM) / name)
    weights = load_file(Path(MINILM) / "model.safetensors")
    weights["encoder.layer.0.output.dense.weight"] += 0.1
    save_file(weights, folder / "model.safetensors")
    return folder


def one_label_a_point(texts: Path, folder: Path) -> Path:
    """The same texts with their first label only: data that MACH's softmax can be trained on."""
    folder.mkdir()
    for file in texts.iterdir():
        records = [json.loads(line) for line in file.read_text().splitlines()]
        for record in records:
            if "target_ind" in record:
                record["target_ind"] = record["target_ind"][:1]
        (folder / file.name).write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


def with_bce(run: RunConfig) -> RunConfig:
    return run.model_copy(update={"method": run.method.model_copy(update={"loss": "bce"})})


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_differs_from_its_method_alone_by_what_it_says(recipe: str) -> None:
    """Recipes are whole configurations: they survive JSON, and validate."""
    run = RECIPES[recipe]()
    assert RunConfig.model_validate_json(run.model_dump_json()) == run
    assert RECIPES[recipe]() == run
    assert (RECIPES[recipe].__doc__ or "").strip()


@pytest.mark.parametrize(
    ("section", "option", "value"),
    [
        ("method", "repetitions", 0),
        ("method", "buckets", 1),
        ("method", "networks", "other"),
        ("method", "aggregation", "max"),
        ("method", "assignment", "random"),
        ("method", "repartition_every", -1),
        ("method", "repartition_candidates", 0),
        ("method", "loss", "hinge"),
        ("encoder", "widths", []),
        ("encoder", "dropout", 1.0),
        ("encoder", "kind", "other"),
        ("encoder", "hashed_width", -1),
        ("vocabulary", "words", -1),
        ("vocabulary", "min_count", 0),
        ("vocabulary", "subwords", 0),
        ("vocabulary", "max_tokens", 0),
        ("training", "epochs", 0),
        ("training", "batch_size", 0),
        ("training", "learning_rate", 0.0),
        ("training", "table_rate", 0.0),
        ("training", "encoder_rate", 0.0),
        ("training", "weight_decay", -0.1),
        ("training", "schedule", "step"),
        ("training", "warmup", 1.0),
        ("training", "validation_fraction", 0.0),
        ("training", "validation_fraction", 1.0),
        ("training", "selection", "accuracy"),
        ("training", "seed", -1),
        ("training", "seed", 2**40),
        ("encoder", "widths", [0]),
        ("training", "learning_rate", float("nan")),
        ("training", "learning_rate", float("inf")),
        ("vocabulary", "max_label_tokens", 0),
        ("vocabulary", "heading_weight", -1.0),
        ("vocabulary", "heading_weight", float("inf")),
        ("training", "accumulate", 0),
        ("training", "precision", "fp8"),
    ],
)
def test_values_that_make_no_sense_are_refused(section: str, option: str, value: object) -> None:
    values = RECIPES["mach"]().model_dump()
    values[section][option] = value
    with pytest.raises(ValueError, match=option):
        RunConfig.model_validate(values)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("model", ""),
        ("pooling", "max"),
        ("layers", 0),
        ("widths", [0]),
        ("dropout", 1.0),
        ("max_tokens", 0),
        ("max_label_tokens", 0),
        ("heads", 3),
    ],
)
def test_values_that_make_no_sense_for_a_transformer_are_refused(option: str, value: object) -> None:
    values = RECIPES["mach-frozen"]().model_dump()
    values["encoder"][option] = value
    with pytest.raises(ValueError, match=option):
        RunConfig.model_validate(values)
