"""What every contender serves: a bundle's engine, from texts to the predictions of an answer."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from service.threads import THREAD_VARIABLES


class Core:
    """An engine and the labels' names.

    Args:
        bundle: folder of a text bundle.
        threads: of one call; the numerical libraries take as many, if none of them is imported yet.
    """

    def __init__(self, bundle: Path, threads: int) -> None:
        for name in THREAD_VARIABLES:
            os.environ[name] = str(threads)
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        from service.bundle import open_bundle
        from service.engine import Engine

        self._engine = Engine.open(open_bundle(bundle), device="cpu", threads=threads)
        self._engine.warm_up()

    def predict(self, texts: Sequence[str], k: int) -> list[dict[str, Any]]:
        """The best k labels of each text, as `POST /predict` writes them."""
        top = self._engine.run(self._engine.prepare(texts), k).top
        labels = self._engine.labels
        return [
            {
                "labels": [
                    {"id": labels.id(row), "text": labels.text(row), "score": score}
                    for row, score in zip(rows, scores, strict=True)
                ]
            }
            for rows, scores in zip(top.ids_QK.tolist(), top.scores_QK.tolist(), strict=True)
        ]


def arguments(description: str | None) -> argparse.Namespace:
    """The command line of a server of this folder: BUNDLE, --port and --threads."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    return parser.parse_args()
