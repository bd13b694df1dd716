"""What an extra of the project installs, from the metadata of what is installed here."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import Distribution, distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS: tuple[str, ...] = tuple(PROJECT["optional-dependencies"])

# Distributions by canonical name.
Found = Mapping[str, Distribution]


def find_distributions(wheels: Iterable[Path] = ()) -> Found:
    """Everything that is installed, and wheels that need not be; a wheel comes before what is installed."""
    places = [distributions(), *(distributions(path=[str(wheel)]) for wheel in wheels)]
    return {canonicalize_name(one.name): one for place in places for one in place}


def requirements(extra: str) -> list[str]:
    """What the project asks for with one extra, the base's requirements included."""
    return [*PROJECT["dependencies"], *PROJECT["optional-dependencies"][extra]]


def closure(lines: Iterable[str], found: Found) -> dict[str, set[str]]:
    """Requirements and all that they need in turn.

    Args:
        lines: requirements as pyproject.toml has them.
        found: the metadata.

    Returns:
        For each distribution that is needed, by canonical name, those that it needs itself. Markers hold for this
        interpreter and system.

    Raises:
        KeyError: the metadata of one that is needed is not there.
    """
    needed: dict[str, set[str]] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [Requirement(line) for line in lines]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        for extra in {"", *requirement.extras} - {extra for one, extra in seen if one == name}:
            seen.add((name, extra))
            further = list(_of_extra(found[name], extra))
            needed.setdefault(name, set()).update(canonicalize_name(one.name) for one in further)
            waiting += further
    return needed


def _of_extra(distribution: Distribution, extra: str) -> Iterator[Requirement]:
    for line in distribution.requires or []:
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            yield requirement
