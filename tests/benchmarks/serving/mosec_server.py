"""Mosec: requests of one text each, batched by its Rust front end, one worker process."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import orjson
from mosec import Server, Worker

BATCH_ROWS = 32
WAIT_MS = 1


class Label(Worker):
    """One core behind Mosec's calls; the worker is a process of its own and learns its bundle from its environment."""

    def __init__(self) -> None:
        from tests.benchmarks.serving.core import Core

        self._core = Core(Path(os.environ["BENCHMARK_BUNDLE"]), int(os.environ["BENCHMARK_THREADS"]))

    def deserialize(self, data: bytes) -> Any:
        return orjson.loads(data)

    def serialize(self, data: Any) -> bytes:
        return orjson.dumps({"predictions": [data]})

    def forward(self, data: list[dict[str, Any]]) -> list[dict[str, Any]]:
        predictions = self._core.predict([one["queries"][0] for one in data], max(one["k"] for one in data))
        return [{"labels": one["labels"][: asked["k"]]} for one, asked in zip(predictions, data, strict=True)]


def main() -> None:
    """Serve until the process is ended."""
    from tests.benchmarks.serving.core import arguments

    chosen = arguments(__doc__)
    environment = {"BENCHMARK_BUNDLE": str(chosen.bundle), "BENCHMARK_THREADS": str(chosen.threads)}
    sys.argv[1:] = ["--port", str(chosen.port), "--address", "127.0.0.1", "--log-level", "warning"]
    server = Server()
    server.append_worker(Label, max_batch_size=BATCH_ROWS, max_wait_time=WAIT_MS, route="/predict", env=[environment])
    server.run()


if __name__ == "__main__":
    main()
