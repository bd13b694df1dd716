"""The whole way without HTTP, once per method: data, artifact, bundle, engine, labels."""

from __future__ import annotations

import numpy as np
import pytest

from service.bundle import open_bundle
from service.engine import Engine
from service.models.queries import Features, Query
from tests.artifacts import KINDS, Workshop
from training.artifact import read_artifact
from training.data.points import Point
from training.data.records import open_source
from training.evaluation import evaluate_artifact


def query(point: Point) -> Query:
    if point.indices is None or point.values is None:
        return point.text or ""
    return Features(point.indices.tolist(), point.values.tolist())


@pytest.mark.parametrize("kind", KINDS)
def test_from_data_to_labels(workshop: Workshop, kind: str) -> None:
    """The served bundle is as good on the test split as `evaluate` says of the artifact, and better than a constant."""
    engine = Engine.open(open_bundle(workshop.bundle(kind)), device="cpu")
    source = open_source(workshop.data(kind))
    points = list(source.points("tst"))
    top = engine.run(engine.prepare([query(point) for point in points]), 3).top
    found = [np.isin(rows, point.labels) for rows, point in zip(top.ids_QK, points, strict=True)]
    measures = evaluate_artifact(read_artifact(workshop.artifact(kind)), source, "tst", [1, 3])
    # A tie may be broken the other way.
    one_point = 100.1 / len(points)
    assert 100 * np.mean([row[0] for row in found]) == pytest.approx(measures["P@1"], abs=one_point)
    assert 100 * np.mean(found) == pytest.approx(measures["P@3"], abs=one_point)
    assert measures["P@1"] > measures["constant_P@1"]
    assert engine.labels.id(int(top.ids_QK[0, 0])) == source.label_ids[top.ids_QK[0, 0]]
