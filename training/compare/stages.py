"""The stages of an entry, each a command of its own in a fresh process, each a file that is not made twice.

Fitting, ranking, exporting and timing are run as a user would run them, so that seconds and memory belong to one model
alone and training need not know of export and service: where those are not installed, their columns stay empty.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import training
from training.artifact import HISTORY
from training.compare.entries import Entry
from training.cost import Cost, epoch_seconds

_T = TypeVar("_T")

TRAIN, EXPORT, SERVE = "training.cli", "model_export.cli", "service.cli"
WRONG_USE = 2  # exit code of all commands here
TIMED_QUERIES = 1000


class StageFailed(Exception):
    """A command did not do its work.

    Attributes:
        refused: whether it said that the data or the options do not suit it, which is no fault of a program.
    """

    def __init__(self, sentence: str, *, refused: bool) -> None:
        super().__init__(sentence)
        self.refused = refused


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one query alone, as `xmc-serve check --time` writes them.

    Attributes:
        queries: how many were asked.
        p50_ms: median from tokens or features to labels.
        p99_ms: 99th percentile of the same.
        prepare_p50_ms: median from text to tokens, which comes before.
    """

    queries: int
    p50_ms: float
    p99_ms: float
    prepare_p50_ms: float


@dataclass(frozen=True)
class Made:
    """What an entry's stages made.

    Attributes:
        artifact: the trained model.
        ranking: its best labels for the test split.
        cost: of training; None where an artifact came without.
        epoch_seconds: of its epochs, as its history says.
        bundle: for serving; None where it could not be exported.
        latency: None where it could not be timed.
        notes: why something is missing.
    """

    artifact: Path
    ranking: Path
    cost: Cost | None
    epoch_seconds: float
    bundle: Path | None
    latency: Latency | None
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Stages:
    """Runs the stages of entries.

    Attributes:
        data: the data folder, as the user named it.
        out: folder of the comparison.
        assignments: options for every recipe.
        log: takes lines for the user.
    """

    data: str
    out: Path
    assignments: tuple[str, ...]
    log: Callable[[str], None]

    def make(self, entry: Entry) -> Made:
        """Do what is not done yet.

        Raises:
            StageFailed: there is no trained model, or it cannot rank the test split.
        """
        artifact = entry.artifact or self._fit(entry.name)
        ranking = self._path("rankings", f"{entry.name}.npy")
        if not ranking.exists():
            self.log(f"{entry.name}: ranking the test split")
            self._run(TRAIN, "evaluate", str(artifact), "--data", self.data, "--ranking", str(ranking))
        notes: list[str] = []
        bundle = self._optional(notes, lambda: self._bundle(entry.name, artifact))
        latency = self._optional(notes, lambda: self._latency(entry.name, bundle)) if bundle else None
        cost_file = _cost_file(artifact)
        cost = Cost.model_validate_json(cost_file.read_text(encoding="utf-8")) if cost_file.exists() else None
        return Made(artifact, ranking, cost, epoch_seconds(artifact / HISTORY), bundle, latency, tuple(notes))

    def _fit(self, name: str) -> Path:
        artifact = self._path("artifacts", name)
        if not artifact.exists():
            self.log(f"{name}: training")
            arguments = ["--data", self.data, "--recipe", name, "--out", str(artifact), "--resume"]
            options = ["--set", *self.assignments] if self.assignments else []
            self._run(TRAIN, "fit", *arguments, *options, "--json", str(_cost_file(artifact)), heard=self.log)
        return artifact

    def _bundle(self, name: str, artifact: Path) -> Path:
        bundle = self._path("bundles", name)
        if not bundle.exists():
            self.log(f"{name}: exporting")
            self._run(EXPORT, "build", str(artifact), "--out", str(bundle), "--name", name)
        return bundle

    def _latency(self, name: str, bundle: Path) -> Latency:
        file = self._path("latencies", f"{name}.json")
        if not file.exists():
            self.log(f"{name}: timing single queries")
            self._run(SERVE, "check", str(bundle), "--time", str(TIMED_QUERIES), "--json", str(file))
        return Latency(**json.loads(file.read_text(encoding="utf-8")))

    def _optional(self, notes: list[str], stage: Callable[[], _T]) -> _T | None:
        try:
            return stage()
        except StageFailed as error:
            notes.append(str(error))
            return None

    def _path(self, folder: str, name: str) -> Path:
        (self.out / folder).mkdir(parents=True, exist_ok=True)
        return self.out / folder / name

    def _run(self, module: str, *arguments: str, heard: Callable[[str], None] = lambda line: None) -> None:
        command = [sys.executable, "-P", "-m", module, *arguments]
        # The same packages as here, also where they are no part of the environment.
        path = [str(Path(training.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, path))}
        said = ""
        with subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8"
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                said = line.rstrip() or said
                heard(f"  {line.rstrip()}")
        if process.returncode:
            raise StageFailed(_why(process.returncode, said), refused=process.returncode == WRONG_USE)


def _cost_file(artifact: Path) -> Path:
    return artifact.with_name(f"{artifact.name}.cost.json")


def _why(code: int, said: str) -> str:
    """A sentence about a command that failed; its own last line where it had time to say one."""
    if code < 0:
        return f"ended by signal {-code}" + (", as by a system that runs out of memory" if code == -9 else "")
    return re.sub(r"^xmc-\w+: ", "", said)
