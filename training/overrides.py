"""From a recipe's name to a run: the recipe, a file's options over it, single options over both."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from training.recipes import RECIPES, RunConfig


class WrongOption(Exception):
    """A recipe, a file of options or a single option is not what it should be."""


def configured(recipe: str, file: Path | None = None, assignments: Sequence[str] = ()) -> RunConfig:
    """The run of a recipe with what the user changes.

    Args:
        recipe: name of a recipe.
        file: TOML whose tables are those of the configuration.
        assignments: ``KEY=VALUE`` with dots between tables, values as in TOML; later ones win.

    Raises:
        WrongOption: no such recipe, an unreadable file or a malformed assignment.
        ValidationError: an unknown option, or a value that it does not take.
    """
    if recipe not in RECIPES:
        raise WrongOption(f"no recipe named {recipe!r}; expected one of {', '.join(RECIPES)}")
    options = RECIPES[recipe]().model_dump()
    changes = {} if file is None else _read_toml(file)
    for assignment in assignments:
        _merge(changes, _assignment(assignment))
    kind = _encoder_kind(options)
    _merge(options, changes)
    if _encoder_kind(options) != kind and "vocabulary" not in changes:
        del options["vocabulary"]  # the other kind has its own
    return RunConfig.model_validate(options)


def _encoder_kind(options: dict[str, Any]) -> object:
    encoder = options["encoder"]
    return encoder.get("kind") if isinstance(encoder, dict) else None


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise WrongOption(f"--config: {path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise WrongOption(f"--config: {path}: expected TOML: {error}") from error


def _assignment(text: str) -> dict[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise WrongOption(f"--set: expected KEY=VALUE, found {text!r}")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value  # a bare word, such as mean_prob
    options: dict[str, Any] = {}
    *parents, last = key.split(".")
    inner = options
    for parent in parents:
        inner = inner.setdefault(parent, {})
    inner[last] = parsed
    return options


def _merge(options: dict[str, Any], changes: dict[str, Any]) -> None:
    """Replace options by changes; a table of another kind begins anew, since its options are others."""
    if "kind" in changes and changes["kind"] != options.get("kind", changes["kind"]):
        options.clear()
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(options.get(key), dict):
            _merge(options[key], value)
        else:
            options[key] = value
