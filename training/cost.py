"""What a run cost: seconds and memory, as `xmc-train fit --json` writes them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from time import perf_counter

from pydantic import BaseModel, ConfigDict

from training import memory


class Cost(BaseModel):
    """What one fitting process took.

    Attributes:
        read_seconds: wall clock, from opening the data to rows of token ids.
        train_seconds: wall clock of everything after that, to the finished artifact: tables, steps, validation,
            writing. A continued run counts its earlier epochs.
        cpu_seconds: of all threads and processes, for both; earlier epochs of a continued run are not in it.
        libraries_bytes: memory before any data was read: Python, torch and other libraries, ready for a step.
        planned_bytes: the most memory the plan expected, libraries included.
        peak_bytes: the most memory that the process held, libraries included; of a run in parts, the most of any one
            process.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    read_seconds: float
    train_seconds: float
    cpu_seconds: float
    libraries_bytes: int
    planned_bytes: int
    peak_bytes: int

    def write(self, file: Path) -> None:
        """Write as one flat JSON object."""
        file.write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")


class Meter:
    """Measures one run; made before any data is read."""

    def __init__(self) -> None:
        memory.load_libraries()
        memory.return_freed()
        memory.forget_peak()
        self._libraries_bytes = memory.resident_bytes()
        self._started, self._cpu = perf_counter(), _cpu_seconds()
        self._read = self._started

    def data_is_read(self) -> None:
        """Mark the end of reading."""
        self._read = perf_counter()

    def cost(self, planned_bytes: int, earlier_seconds: float) -> Cost:
        """The cost up to now.

        Args:
            planned_bytes: what the plan said.
            earlier_seconds: of epochs that another process ran before this one continued.
        """
        return Cost(
            read_seconds=self._read - self._started,
            train_seconds=perf_counter() - self._read + earlier_seconds,
            cpu_seconds=_cpu_seconds() - self._cpu,
            libraries_bytes=self._libraries_bytes,
            planned_bytes=planned_bytes,
            peak_bytes=max(memory.peak_bytes(), memory.children_peak_bytes()),
        )


def _cpu_seconds() -> float:
    """Of this process and of those it waited for."""
    return sum(os.times()[:4])


def epoch_seconds(history: Path) -> float:
    """Seconds of the epochs that a history file lists, their validation included; 0 without a file."""
    if not history.exists():
        return 0.0
    lines = [json.loads(line) for line in history.read_text(encoding="utf-8").splitlines()]
    return float(sum(line["train_seconds"] + line["evaluate_seconds"] for line in lines))
