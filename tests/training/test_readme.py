"""`training/README.md` says what the code does: recipes, derived sizes, options, files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from training.augment.gandalf import GandalfConfig
from training.encoders import BagConfig, TransformerConfig
from training.methods import METHODS
from training.methods.base import Shape
from training.methods.declare import DeclareConfig
from training.methods.mach import MachConfig
from training.recipes import RECIPES, RunConfig, TrainingConfig
from training.reranker import RerankerConfig
from training.vocabulary import VocabularyConfig

FOLDER = Path(__file__).parents[2] / "training"
README = (FOLDER / "README.md").read_text(encoding="utf-8")
TAGS = {"name", "kind", "architecture"}


def table(heading: str) -> list[list[str]]:
    """Cells of the table whose first heading is given, without its headings."""
    lines = README[README.index(f"| {heading} |") :].splitlines()
    rows = lines[2 : next(place for place, line in enumerate(lines) if not line.startswith("|"))]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def number(cell: str) -> int:
    return int(cell.replace(",", ""))


def shape(labels: int, rows: int) -> Shape:
    return Shape(input_width=10, label_count=labels, train_rows=rows, text=True, single_label=False)


def test_recipes_are_those_of_the_table() -> None:
    expected = [
        [f"`{name}`", f"`{recipe().method.name}`", (recipe.__doc__ or "").strip().splitlines()[0].rstrip(".")]
        for name, recipe in RECIPES.items()
    ]
    assert table("recipe") == expected
    assert {row[1].strip("`") for row in table("recipe")} == set(METHODS)


@pytest.mark.parametrize("row", table("L up to"), ids=lambda row: row[0])
def test_sizes_derived_from_labels(row: list[str]) -> None:
    labels = number(row[0])
    mach = RunConfig(method=MachConfig()).resolved(shape(labels, 10**6))
    declare = DeclareConfig().resolved(shape(labels, 10**6))
    assert isinstance(mach.method, MachConfig)
    widths = ", ".join(map(str, mach.encoder.widths or ()))
    assert row[1:] == [str(mach.method.repetitions), str(mach.method.buckets), widths, str(declare.rank)]


def test_limits_of_the_table_are_those_of_the_code() -> None:
    """One label more than a row that ends a range, and something changes."""
    limits = [number(row[0]) for row in table("L up to")]
    for limit in (1_000, 4_096, 32_768, 524_288):
        assert limit in limits
        runs = [
            (RunConfig(method=config).resolved(shape(labels, 10**6)).model_dump())
            for config in (MachConfig(), DeclareConfig())
            for labels in (limit, limit + 1)
        ]
        assert runs[0] != runs[1] or runs[2] != runs[3]


@pytest.mark.parametrize("row", table("N"), ids=lambda row: row[0])
def test_sizes_derived_from_rows(row: list[str]) -> None:
    derived = TrainingConfig().resolved(shape(100, number(row[0])))
    assert row[1:] == [str(derived.epochs), str(derived.batch_size)]


def default(value: Any) -> str:
    if value is None:
        return "derived"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def options() -> str:
    """The README's part on options, as it should be."""
    sections: dict[str, type[BaseModel]] = {
        **{f"`method` of {name}": method.Config for name, method in METHODS.items()},
        "`encoder` of kind bag": BagConfig,
        "`encoder` of kind transformer": TransformerConfig,
        "`vocabulary`": VocabularyConfig,
        "`training`": TrainingConfig,
        "`augmentation` named gandalf": GandalfConfig,
        "`reranker`": RerankerConfig,
    }
    parts = []
    for title, config in sections.items():
        rows = [
            f"| `{name}` | {default(field.default)} | {(field.description or '').replace('None:', 'derived:')} |"
            for name, field in config.model_fields.items()
            if name not in TAGS
        ]
        parts.append("\n".join([f"| {title} | default | |", "|---|---|---|", *rows]))
    return "\n\n".join(parts)


def test_every_option_is_described() -> None:
    models = [method.Config for method in METHODS.values()] + [
        BagConfig,
        TransformerConfig,
        VocabularyConfig,
        TrainingConfig,
        GandalfConfig,
        RerankerConfig,
    ]
    silent = [
        f"{model.__name__}.{name}"
        for model in models
        for name, field in model.model_fields.items()
        if name not in TAGS and not field.description
    ]
    assert not silent


def test_options_are_those_of_the_code() -> None:
    written = re.search(r"<!-- options:.*?-->\n(.*?)\n<!-- end of options -->", README, flags=re.DOTALL)
    assert written is not None
    assert written[1] == options(), f"the part on options in training/README.md should read:\n\n{options()}"


def test_files_named_are_there() -> None:
    steps = [cell for row in table("step") for cell in re.findall(r"`([\w/]+\.py)`", " ".join(row))]
    assert len(steps) > 10
    assert [name for name in steps if not (FOLDER / name).is_file()] == []
    named = {file.relative_to(FOLDER).as_posix() for file in FOLDER.glob("*.py")}
    unsaid = {name for name in named if name not in README} - {"__init__.py", "cli.py", "commands.py", "planning.py"}
    assert unsaid == set()
