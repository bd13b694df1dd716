"""What napkinXC's measures say of some drawn predictions: `tests/golden/peer_metrics.json`, which our own must equal.

    build/peers/venv/bin/python -m tests.benchmarks.peers.golden

The suite compares against the file alone, so that it needs none of the libraries.
"""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
from napkinxc import metrics

FILE = Path(__file__).parents[2] / "golden" / "peer_metrics.json"
LABELS, TRAIN_ROWS, TEST_ROWS, K = 40, 60, 30, 5
A, B = 0.6, 2.6
PADDING = -1


def main() -> None:
    """Draw a case and write it with what napkinXC makes of it."""
    draw = np.random.default_rng(0)
    # Rare labels are rare in both splits; some test rows have no label, some fewer predictions than ranks.
    frequencies_L = 1 / np.arange(1, LABELS + 1)
    train = [_labels(draw, frequencies_L, least=1) for _ in range(TRAIN_ROWS)]
    true = [_labels(draw, frequencies_L, least=0) for _ in range(TEST_ROWS)]
    ranked = [_ranking(draw, labels) for labels in true]
    expected = _measures(train, true, [[label for label in row if label != PADDING] for row in ranked])
    case = {
        "library": f"napkinxc {version('napkinxc')}",
        "labels": LABELS,
        "propensity_a": A,
        "propensity_b": B,
        "train": train,
        "true": true,
        "ranked": ranked,
        "expected": expected,
    }
    lines = (f" {json.dumps(name)}: {json.dumps(value)}" for name, value in case.items())
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def _labels(draw: np.random.Generator, frequencies_L: np.ndarray, *, least: int) -> list[int]:
    count = int(draw.integers(least, 8))
    return sorted(draw.choice(LABELS, count, replace=False, p=frequencies_L / frequencies_L.sum()).tolist())


def _ranking(draw: np.random.Generator, labels: list[int]) -> list[int]:
    """About half true labels, the rest any; padded where it is cut short."""
    scores_L = draw.random(LABELS)
    scores_L[labels] += 0.6 * draw.random(len(labels))
    kept = int(draw.integers(K - 2, K + 1))
    return [*np.argsort(-scores_L)[:kept].tolist(), *[PADDING] * (K - kept)]


def _measures(train: list[list[int]], true: list[list[int]], ranked: list[list[int]]) -> dict[str, float]:
    matrix = np.zeros((len(train), LABELS))
    for row, labels in enumerate(train):
        matrix[row, labels] = 1
    weights_L = metrics.Jain_et_al_inverse_propensity(matrix, A, B)
    values = {
        "P": metrics.precision_at_k(true, ranked, K),
        "nDCG": metrics.ndcg_at_k(true, ranked, K),
        "PSP": metrics.psprecision_at_k(true, ranked, weights_L, K),
        "R": metrics.recall_at_k(true, ranked, K, zero_division=1),
        "coverage": metrics.coverage_at_k(true, ranked, K),
    }
    return {f"{name}@{rank}": 100 * float(found[rank - 1]) for name, found in values.items() for rank in (1, 3, 5)}


if __name__ == "__main__":
    main()
