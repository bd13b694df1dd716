"""A Dockerfile as data: its stages, and the instructions of each."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

_INSTRUCTION = re.compile(r"(?P<word>[A-Z]+)\s+(?P<flags>(?:--\S+\s+)*)(?P<text>.*)", re.DOTALL)
_VARIABLE = re.compile(r"\$(?:\{(?P<braced>\w+)\}|(?P<plain>\w+))")


@dataclass(frozen=True)
class Instruction:
    """One instruction, continuation lines joined.

    Attributes:
        word: which one, e.g. ``RUN``.
        flags: the value of each flag before its text, e.g. ``{"from": "wheel"}``.
        text: the rest, variables not replaced.
    """

    word: str
    flags: Mapping[str, str]
    text: str

    def words(self) -> list[str]:
        """The text, split as a shell would."""
        return shlex.split(self.text)

    def pairs(self) -> dict[str, str]:
        """``NAME=value`` of the text (ARG, ENV and LABEL); a name alone has no entry."""
        return dict(word.split("=", 1) for word in self.words() if "=" in word)

    def command(self) -> list[str]:
        """The text as a command in exec form; after ``CMD`` for a HEALTHCHECK."""
        command = json.loads(self.text.removeprefix("CMD "))
        assert isinstance(command, list), f"{self.word} is not in exec form: {self.text}"
        return command


@dataclass(frozen=True)
class Stage:
    """What stands between a FROM and the next.

    Attributes:
        base: an image or an earlier stage, variables not replaced.
        name: after AS; the base's where it has none.
        instructions: those after the FROM.
    """

    base: str
    name: str
    instructions: list[Instruction] = field(default_factory=list)

    def of(self, word: str) -> list[Instruction]:
        """Its instructions of one kind."""
        return [instruction for instruction in self.instructions if instruction.word == word]

    def environment(self) -> dict[str, str]:
        """The variables that it sets itself, others in their values not replaced."""
        return {name: value for instruction in self.of("ENV") for name, value in instruction.pairs().items()}


@dataclass(frozen=True)
class Dockerfile:
    """All stages, in order, and the arguments before the first."""

    arguments: dict[str, str]
    stages: list[Stage]

    def stage(self, name: str) -> Stage:
        """The stage of that name."""
        return next(stage for stage in self.stages if stage.name == name)


def read_dockerfile(path: Path) -> Dockerfile:
    """Parse a file; lines of comment count nowhere, not even within an instruction."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.lstrip().startswith("#")]
    dockerfile = Dockerfile({}, [])
    for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        if not line.strip():
            continue
        instruction = _parse(line)
        if instruction.word == "FROM":
            base, *name = instruction.text.split(" AS ")
            dockerfile.stages.append(Stage(base, name[0] if name else base))
        elif dockerfile.stages:
            dockerfile.stages[-1].instructions.append(instruction)
        else:
            dockerfile.arguments.update(instruction.pairs())
    return dockerfile


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Replace ``$NAME`` and ``${NAME}``.

    Raises:
        KeyError: a variable has no value.
    """
    return _VARIABLE.sub(lambda match: variables[match["braced"] or match["plain"]], text)


def _parse(line: str) -> Instruction:
    match = _INSTRUCTION.fullmatch(line)
    assert match is not None, f"not an instruction: {line}"
    flags = dict(flag.removeprefix("--").split("=", 1) for flag in match["flags"].split())
    return Instruction(match["word"], flags, match["text"].strip())
