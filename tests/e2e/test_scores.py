"""Scores over HTTP, from training to the answer: probabilities where calibrated, the method's own numbers where raw."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_export.writer import Options, build
from tests.artifacts import KINDS, Workshop
from tests.service.serving import Service, serving
from training.artifact import read_artifact
from training.data.points import Point
from training.data.records import open_source
from training.evaluation import evaluate_artifact
from training.metrics import calibration_error

QUERIES_AT_ONCE = 32


def body(points: list[Point]) -> dict[str, Any]:
    if points[0].indices is None:
        return {"queries": [point.text for point in points]}
    vectors = [(point.indices, point.values) for point in points]
    return {
        "features": [
            {"indices": indices.tolist(), "values": values.tolist()}
            for indices, values in vectors
            if indices is not None and values is not None
        ]
    }


def answers(service: Service, points: list[Point], k: int) -> list[list[dict[str, Any]]]:
    """The labels of every point's prediction."""
    found = []
    for start in range(0, len(points), QUERIES_AT_ONCE):
        response = service.predict({**body(points[start : start + QUERIES_AT_ONCE]), "k": k})
        assert response.status_code == 200
        found += [prediction["labels"] for prediction in response.json()["predictions"]]
    return found


def scores(labels: list[dict[str, Any]]) -> dict[str, float]:
    return {label["id"]: label["score"] for label in labels}


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_probabilities_that_hold_as_training_measured(workshop: Workshop, kind: str) -> None:
    source = open_source(workshop.data(kind))
    points = list(source.points("tst"))
    with serving(workshop.bundle(kind)) as service:
        found = answers(service, points, k=5)
        described = service.client.get(f"/v1/models/{service.model.name}").json()
    assert described["scores"] == "calibrated"
    scores_NK = np.array([[label["score"] for label in labels] for labels in found])
    assert ((scores_NK >= 0) & (scores_NK <= 1)).all()
    assert (np.diff(scores_NK, axis=1) <= 0).all()
    relevant = [{source.label_ids[row] for row in point.labels} for point in points]
    hits_NK = np.array(
        [[label["id"] in true for label in labels] for labels, true in zip(found, relevant, strict=True)]
    )
    measured = evaluate_artifact(read_artifact(workshop.artifact(kind)), source, "tst", [5])["ECE@5"]
    # A tie may be broken the other way.
    assert 100 * calibration_error(scores_NK.ravel(), hits_NK.ravel()) == pytest.approx(measured, abs=0.5)


def test_raw_scores_stay_available(workshop: Workshop, tmp_path: Path) -> None:
    """The same labels in the same order, with the sums of logits that MACH orders them by."""
    points = list(open_source(workshop.data("mach")).points("tst"))[:QUERIES_AT_ONCE]
    build(read_artifact(workshop.artifact("mach")), tmp_path / "raw", Options(scores="raw"))
    found = {}
    for name, bundle in (("calibrated", workshop.bundle("mach")), ("raw", tmp_path / "raw")):
        with serving(bundle) as service:
            found[name] = answers(service, points, k=5)
            described = service.client.get(f"/v1/models/{service.model.name}").json()
            assert described["scores"] == name
    ids = {name: [[label["id"] for label in labels] for labels in all_] for name, all_ in found.items()}
    assert ids["raw"] == ids["calibrated"]
    assert min(label["score"] for labels in found["raw"] for label in labels) < 0


def test_re_ranking_prefers_rare_labels_and_keeps_their_probabilities(workshop: Workshop, tmp_path: Path) -> None:
    artifact = read_artifact(workshop.artifact("mach"))
    points = list(open_source(workshop.data("mach")).points("tst"))[:QUERIES_AT_ONCE]
    build(artifact, tmp_path / "rare", Options(propensity_weight=4.0))
    counts = dict(zip(artifact.label_ids, artifact.label_counts.tolist(), strict=True))
    found = {}
    for name, bundle in (("usual", workshop.bundle("mach")), ("rare", tmp_path / "rare")):
        with serving(bundle) as service:
            found[name] = answers(service, points, k=100)
            described = service.client.get(f"/v1/models/{service.model.name}").json()
            assert described.get("propensity_weight") == (4.0 if name == "rare" else None)
    for usual, rare in zip(found["usual"], found["rare"], strict=True):
        # Queries that came together may be split into batches at another place, which moves a float's last digit.
        assert scores(rare) == pytest.approx(scores(usual), rel=1e-5)
    first = {name: np.mean([counts[labels[0]["id"]] for labels in all_]) for name, all_ in found.items()}
    assert first["rare"] < first["usual"]
