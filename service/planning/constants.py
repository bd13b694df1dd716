"""What was measured: the file ``constants.json``, and laws that hold between its points.

``python -m tests.benchmarks.capacity`` writes the file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field

from service.bundle.searching import ApproximateType
from service.bundle.strict import Strict

FILE = Path(__file__).with_name("constants.json")

Share = Annotated[float, Field(gt=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]

# The term of a law that is there whatever the work is.
ALWAYS = "always"
Work = Mapping[str, float]


class Law(Strict):
    """A sum of some amounts of work, each times what it was measured to cost.

    Attributes:
        costs: by the name of the work.
        measured: the most of each that was measured.
    """

    costs: dict[str, Annotated[float, Field(ge=0.0)]]
    measured: dict[str, float]

    def of(self, work: Work) -> float:
        """What some work costs; all that the law names must be given."""
        return sum(cost * (1.0 if name == ALWAYS else work[name]) for name, cost in self.costs.items())

    def beyond(self, work: Work) -> dict[str, float]:
        """Amounts of the work that are larger than any that was measured."""
        return {name: work[name] for name, most in self.measured.items() if work[name] > most}


class Source(Strict):
    """Where figures come from."""

    machine: str
    date: str
    command: str


class Files(Strict):
    """What files hold beside numbers.

    Attributes:
        token_bytes: of a token in ``tokenizer.json``.
        projection_share: dimensions of an index of candidates, as a share of those of a vector.
        mapped_index_shares: of an index of candidates, what a process maps; it holds the rest. By its type.
    """

    token_bytes: Positive
    projection_share: Share
    mapped_index_shares: dict[ApproximateType, Annotated[float, Field(ge=0.0, le=1.0)]]


class Memory(Strict):
    """Bytes of processes.

    Attributes:
        model: private memory of a model's process, by work.
        model_code: of libraries that it maps.
        http: private memory of the process that speaks HTTP.
        http_code: of libraries that it maps.
    """

    model: Law
    model_code: Positive
    http: Positive
    http_code: Positive


class Seconds(Strict):
    """Times on one processor.

    Attributes:
        lone: seconds of a query alone, by stage.
        batch: seconds of each query of a batch, by stage.
        http: of the process that speaks HTTP, for each query.
        batcher: of the model's process, beside its engine, for each query.
        hop: what a lone query takes over HTTP beyond its engine.
    """

    lone: dict[str, Law]
    batch: dict[str, Law]
    http: Positive
    batcher: Positive
    hop: Positive


class GpuPoint(Strict):
    """A model on a GPU: what it multiplied or summed for a query, and milliseconds of a lone query and of a batch."""

    work: Positive
    lone_ms: Positive
    batch_ms: Positive
    batch_rows: Annotated[int, Field(ge=1)]


class Gpu(Strict):
    """Figures of a GPU, of whole answers: encoder and search are not told apart."""

    source: Source
    memory_bytes: Positive
    mach: GpuPoint
    search: GpuPoint


class Constants(Strict):
    """The whole file.

    Attributes:
        source: of all figures but those of a GPU.
        pace: seconds that a fixed product of matrices took while they were measured.
        reading: seconds that it took to read a MB from memory.
        batch_rows: queries of a batch.
        files: what they hold.
        memory: of processes.
        seconds: of processors.
        gpu: with a source of its own.
    """

    source: Source
    pace: Positive
    reading: Positive
    batch_rows: Annotated[int, Field(ge=1)]
    files: Files
    memory: Memory
    seconds: Seconds
    gpu: Gpu


def load() -> Constants:
    """The constants that come with the program."""
    return Constants.model_validate(json.loads(FILE.read_text(encoding="utf-8")))
