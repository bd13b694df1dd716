"""Presets for published data sets: files that their own first line uses, and that the results list as not run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import training
from training.overrides import configured

FOLDER = Path(training.__file__).parent / "presets"
PRESETS = sorted(FOLDER.glob("*.toml"))
# The first line of a preset.
COMMAND = re.compile(r"# \S+: xmc-train fit --data DIR --recipe (\S+) --config training/presets/(\S+) --out OUT")


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.stem)
def test_the_command_of_a_preset_is_a_run(preset: Path) -> None:
    found = COMMAND.fullmatch(preset.read_text().splitlines()[0])
    assert found is not None
    recipe, file = found.groups()
    assert file == preset.name
    run, plain = configured(recipe, preset), configured(recipe)
    assert run != plain
    assert type(run.method) is type(plain.method)


def test_the_results_list_every_preset() -> None:
    text = (FOLDER.parent / "results.md").read_text()
    listed = re.findall(r"^\| `([\w.-]+)` \| [0-9.]+ / ", text, flags=re.MULTILINE)
    assert sorted(listed) == [preset.stem for preset in PRESETS]
