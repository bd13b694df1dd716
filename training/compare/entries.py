"""What is compared: names of recipes, and folders of artifacts that are trained already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from training.artifact import read_artifact
from training.overrides import WrongOption, configured
from training.recipes import RECIPES


@dataclass(frozen=True)
class Entry:
    """One line of the report.

    Attributes:
        name: in the report, and of the entry's files.
        artifact: folder of the trained model; None where a recipe is to be trained.
    """

    name: str
    artifact: Path | None


def read_entries(text: str, assignments: Sequence[str]) -> list[Entry]:
    """Entries from a list with commas, checked before anything is trained.

    Args:
        text: names of recipes and paths of artifacts; a name that is both is the recipe.
        assignments: options for every recipe, as `xmc-train fit --set` takes them.

    Raises:
        WrongOption: an entry is neither, or two have one name.
        ValidationError: a recipe does not take an option.
        ArtifactError: an artifact is damaged.
    """
    entries = [_entry(part.strip(), assignments) for part in text.split(",")]
    names = [entry.name for entry in entries]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise WrongOption(f"--recipes: expected every name once, found {', '.join(twice)} more than once")
    return entries


def _entry(part: str, assignments: Sequence[str]) -> Entry:
    if part in RECIPES:
        configured(part, None, assignments)
        return Entry(part, None)
    path = Path(part)
    if not part or not path.is_dir():
        expected = f"a recipe ({', '.join(RECIPES)}) or the folder of an artifact"
        raise WrongOption(f"--recipes: expected {expected}, found {part!r}")
    read_artifact(path)
    return Entry(path.resolve().name, path)
