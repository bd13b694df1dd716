"""LitServe: requests of one text each, batched by the server, one worker process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import litserve

from tests.benchmarks.serving.core import Core, arguments

BATCH_ROWS = 32
# 0 would have the worker spin between requests.
BATCH_SECONDS = 0.001


class Api(litserve.LitAPI):
    """One core behind LitServe's calls."""

    def __init__(self, bundle: Path, threads: int) -> None:
        super().__init__(max_batch_size=BATCH_ROWS, batch_timeout=BATCH_SECONDS, api_path="/predict")
        self._bundle = bundle
        self._threads = threads

    def setup(self, device: str) -> None:
        self._core = Core(self._bundle, self._threads)

    def decode_request(self, request):  # type: ignore[no-untyped-def]  # LitServe takes an annotation for a parameter
        return request["queries"][0], request["k"]

    def batch(self, inputs: list[tuple[str, int]]) -> list[tuple[str, int]]:
        return inputs

    def predict(self, inputs: list[tuple[str, int]]) -> list[dict[str, Any]]:
        predictions = self._core.predict([text for text, _ in inputs], max(k for _, k in inputs))
        return [{"labels": one["labels"][:k]} for one, (_, k) in zip(predictions, inputs, strict=True)]

    def unbatch(self, output: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return output

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        return {"predictions": [output]}


def main() -> None:
    """Serve until the process is ended."""
    chosen = arguments(__doc__)
    server = litserve.LitServer(Api(chosen.bundle, chosen.threads), accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=chosen.port, num_api_servers=1, generate_client_file=False, log_level="warning")


if __name__ == "__main__":
    main()
