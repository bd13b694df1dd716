"""What the parsers of several commands have in common."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable
from typing import TypeAlias, TypeVar

from service.settings import default_text, flag, options, variable

Number = TypeVar("Number", int, float)
Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

OK, FAILED, WRONG_USE = 0, 1, 2


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Make every setting a flag."""
    for name, option in options().items():
        help_text = f"{option.summary} (default: {default_text(name)}; variable: {variable(name)})"
        parser.add_argument(flag(name), dest=name, action="append", metavar="VALUE", help=help_text.replace("%", "%%"))


def given_settings(chosen: argparse.Namespace) -> dict[str, str]:
    """The settings among the flags, as their variables would hold them."""
    flags = {}
    for name, option in options().items():
        given: list[str] | None = getattr(chosen, name)
        if given is not None:
            flags[name] = os.pathsep.join(given) if option.repeated else given[-1]
    return flags


def count(text: str) -> int:
    """One whole number above 0."""
    (number,) = positive(int)(text)
    return number


def positive(kind: Callable[[str], Number]) -> Callable[[str], tuple[Number, ...]]:
    """A parser of numbers above 0 that are separated by commas."""

    def parse(text: str) -> tuple[Number, ...]:
        numbers = tuple(kind(part) for part in text.split(","))
        if not all(0 < number < math.inf for number in numbers):
            raise ValueError
        return numbers

    parse.__name__ = "list of numbers above 0"  # argparse puts it after "invalid"
    return parse
