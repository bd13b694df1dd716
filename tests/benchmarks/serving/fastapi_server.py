"""The plain FastAPI handler that most people write first: a model of the body, a function, no batching."""

from __future__ import annotations

from typing import Any

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

from tests.benchmarks.serving.core import Core, arguments


class Body(BaseModel):
    queries: list[str]
    k: int = 5


class Answer(BaseModel):
    predictions: list[dict[str, Any]]


def main() -> None:
    """Serve until the process is ended."""
    chosen = arguments(__doc__)
    core = Core(chosen.bundle, chosen.threads)
    app = FastAPI()

    @app.post("/predict")
    def predict(body: Body) -> Answer:
        return Answer(predictions=core.predict(body.queries, body.k))

    uvicorn.run(app, port=chosen.port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
