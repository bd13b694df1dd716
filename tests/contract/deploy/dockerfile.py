"""A Dockerfile, read as far as tests need it."""

from __future__ import annotations

import re
from pathlib import Path

from tests.contract.deploy.rendering import ROOT

DOCKERFILE = ROOT / "docker" / "service.Dockerfile"


class Dockerfile:
    """The instructions of a Dockerfile, continuation lines joined, by stage."""

    def __init__(self, path: Path) -> None:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
        self.stages: dict[str, list[str]] = {}
        stage = ""
        for instruction in re.sub(r"\\\n\s*", "", "\n".join(lines)).split("\n"):
            if instruction.startswith("FROM "):
                stage = instruction.split(" AS ")[-1].removeprefix("FROM ")
            if instruction:
                self.stages.setdefault(stage, []).append(instruction)

    def environment(self, stage: str) -> dict[str, str]:
        """The variables that a stage sets itself."""
        settings = [line.removeprefix("ENV ") for line in self.stages[stage] if line.startswith("ENV ")]
        return dict(pair.split("=", 1) for line in settings for pair in line.split())
