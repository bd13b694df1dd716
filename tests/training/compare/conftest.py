"""One small comparison that the tests of this folder look at."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.training.synthetic import LABELS
from training.cli import DONE, main
from training.compare.peers import Peer
from training.compare.truth import read_truth
from training.data.records import open_source
from training.ranking import write_ranking

SMALL = ("training.epochs=1", "encoder.widths=[8]")


def compare(data: Path, out: Path, recipes: str, *arguments: str, options: Sequence[str] = SMALL) -> int:
    """The command; returns its exit code."""
    return main(
        ["compare", "--data", str(data), "--recipes", recipes, "--out", str(out), *arguments, "--set", *options]
    )


def write_peer(folder: Path, data: Path, name: str = "perfect", **changes: Any) -> Path:
    """The file of a peer that ranks the true labels first."""
    folder.mkdir(exist_ok=True)
    truth = read_truth(open_source(data))
    ranked_NK = np.full((truth.targets_NL.shape[0], LABELS), -1)
    for row, labels in enumerate(np.split(truth.targets_NL.indices, truth.targets_NL.indptr[1:-1])):
        ranked_NK[row, : len(labels)] = labels
    write_ranking(folder / f"{name}.npy", ranked_NK)
    numbers = dict.fromkeys(Peer.model_fields.keys(), 1)
    words = {"name": name, "library": "oracle 1", "settings": "none", "ranking": f"{name}.npy"}
    file = folder / f"{name}.json"
    file.write_text(json.dumps(numbers | {"peak_bytes": 2**20 + 1, "test_digest": truth.digest} | words | changes))
    return file


@pytest.fixture(scope="package")
def compared(features: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a comparison: a recipe, one that the data does not suit, and a peer."""
    folder = tmp_path_factory.mktemp("compared")
    peer = write_peer(folder / "peers", features)
    assert compare(features, folder / "out", "declare,unidec", "--peers", str(peer)) == DONE
    return folder / "out"
