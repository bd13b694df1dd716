"""What re-ranking by inverse propensity does to the answers for the embedded sample's test split.

    python -m tests.model_export.propensities ARTIFACT

Answers are the engine's, for several weights on one bundle; measures are those of `xmc-train evaluate`, in percent.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model_export.writer import Options, build
from service.bundle import Bundle, content_version, load_bundle, open_bundle
from service.engine import Engine
from training import metrics
from training.artifact import Artifact, read_artifact
from training.data import sample
from training.data.dataset import read_rows
from training.data.records import Source, open_source

WEIGHTS = (0.0, 0.25, 0.5, 1.0, 2.0)
K = 5
QUERIES_AT_ONCE = 64


def main(arguments: Sequence[str]) -> None:
    """Print one line for each weight."""
    artifact, source = read_artifact(Path(arguments[0])), open_source(sample.path())
    config = artifact.config
    targets = read_rows(source, "tst", artifact.tokenizer, config.run.texts).targets
    constants = (config.card.propensity_a, config.card.propensity_b)
    inverse_L = metrics.inverse_propensities(artifact.label_counts, config.counted_rows, *constants)
    for weight, bundle in weighted(artifact):
        found = metrics.report(answers(bundle, source), targets, inverse_L, [1, K])
        print(f"W={weight:<5g}", "  ".join(f"{name} {found[name]:5.2f}" for name in ("P@1", "P@5", "PSP@1", "PSP@5")))


def weighted(artifact: Artifact) -> Iterator[tuple[float, Bundle]]:
    """One bundle of the artifact, opened with each weight."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bundle"
        build(artifact, path, Options(propensity_weight=1.0))
        written = open_bundle(path).manifest
        assert written.propensity is not None
        for weight in WEIGHTS:
            if weight == 0:
                build(artifact, Path(folder) / "plain", Options())
                yield weight, open_bundle(Path(folder) / "plain")
                continue
            section = written.propensity.model_copy(update={"weight": weight})
            version = content_version(written.input, written.method, written.files, written.calibration, section)
            yield weight, load_bundle(path, written.model_copy(update={"propensity": section, "version": version}))


def answers(bundle: Bundle, source: Source) -> NDArray[np.int64]:
    """The engine's best labels for every test point: int64 (N, K)."""
    engine = Engine.open(bundle, device="cpu")
    texts = [point.text or "" for point in source.points("tst")]
    parts = [texts[start : start + QUERIES_AT_ONCE] for start in range(0, len(texts), QUERIES_AT_ONCE)]
    return np.concatenate([engine.run(engine.prepare(part), K).top.ids_QK for part in parts])


if __name__ == "__main__":
    main(sys.argv[1:])
