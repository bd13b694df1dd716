"""BentoML: requests of one text each, batched by its dispatcher, one worker process under `bentoml serve`.

One service takes the requests and batches them: a second one behind it would cost every request a second HTTP hop.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import bentoml
from bentoml.validators import ContentType
from pydantic import BaseModel, PlainSerializer, model_validator

from service.threads import THREAD_VARIABLES
from tests.benchmarks.serving.core import Core, arguments

BATCH_ROWS = 32
# A request that would take longer is refused; how long one waits for company, BentoML finds out by itself.
REFUSED_AFTER_MS = 10_000
HOME = Path("build/serving/bentoml")
PR_SET_PDEATHSIG = 1


class Asked(BaseModel):
    queries: list[str]
    k: int = 5


class Body(BaseModel):
    """A request as BentoML batches it: its only field is a list, and the lists of many requests become one."""

    asked: list[Asked]

    @model_validator(mode="before")
    @classmethod
    def _from_json(cls, body: Any) -> dict[str, Any]:
        return {"asked": [body]}


# Without the type of its content, BentoML would derive it from a JSON schema made anew for every answer.
Answer = Annotated[
    list[dict[str, Any]],
    PlainSerializer(lambda predictions: {"predictions": predictions}),
    ContentType("application/json"),
]


@bentoml.service(workers=1, logging={"access": {"enabled": False}})
class Label:
    """One core behind BentoML's calls; its worker process learns the bundle from its environment."""

    def __init__(self) -> None:
        # The supervisor gives its workers sessions of their own, where a benchmark's end of the group would miss them.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        self._core = Core(Path(os.environ["BENCHMARK_BUNDLE"]), int(os.environ["BENCHMARK_THREADS"]))

    @bentoml.api(
        route="/predict",
        batchable=True,
        max_batch_size=BATCH_ROWS,
        max_latency_ms=REFUSED_AFTER_MS,
        input_spec=Body,
    )
    def predict(self, asked: list[Asked]) -> Answer:
        predictions = self._core.predict([one.queries[0] for one in asked], max(one.k for one in asked))
        return [{"labels": one["labels"][: body.k]} for one, body in zip(predictions, asked, strict=True)]


def main() -> None:
    """Serve until the process is ended."""
    chosen = arguments(__doc__)
    # The worker imports numpy before it makes the core.
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(chosen.threads)))
    os.environ["BENCHMARK_BUNDLE"] = str(chosen.bundle)
    os.environ["BENCHMARK_THREADS"] = str(chosen.threads)
    os.environ["BENTOML_HOME"] = str(HOME.absolute())
    os.environ["BENTOML_DO_NOT_TRACK"] = "True"
    served = f"tests.benchmarks.serving.bentoml_server:{Label.name}"
    address = ["--host", "127.0.0.1", "--port", str(chosen.port)]
    os.execv(sys.executable, [sys.executable, "-m", "bentoml", "serve", "--quiet", served, *address])


if __name__ == "__main__":
    main()
