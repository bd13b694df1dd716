"""Random points for round trips, and plain writers of every layout that share no code with the readers."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from training.data.points import Point

LABELS = 7
FEATURES = 11

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
weights = st.floats(0.015625, 1e6, width=32)
feature_values = st.floats(allow_nan=False, allow_infinity=False, width=32)


@st.composite
def text_points(draw: st.DrawFn) -> Point:
    labels, relevances = draw(targets())
    return Point(draw(words), None, None, labels, relevances)


@st.composite
def feature_points(draw: st.DrawFn, *, weighted: bool) -> Point:
    labels, relevances = draw(targets())
    features = draw(st.dictionaries(st.integers(0, FEATURES - 1), feature_values))
    indices = np.array(sorted(features), dtype=np.int32)
    values = np.array([features[index] for index in sorted(features)], dtype=np.float32)
    return Point(None, indices, values, labels, relevances if weighted else np.ones_like(relevances))


@st.composite
def targets(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    drawn = draw(st.dictionaries(st.integers(0, LABELS - 1), weights))
    ordered = sorted(drawn)
    return np.array(ordered, dtype=np.int32), np.array([drawn[label] for label in ordered], dtype=np.float32)


def raw_lines(points: Sequence[Point], order: Sequence[int]) -> str:
    """Points in XC raw layout; `order` is a permutation of the labels, in which each point names its own."""
    lines = []
    for row, point in enumerate(points):
        weights = dict(zip(point.labels.tolist(), point.relevances.tolist(), strict=True))
        named = [label for label in order if label in weights]
        record = {"uid": f"p{row}", "title": point.text, "target_ind": named}
        lines.append(json.dumps(record | {"target_rel": [weights[label] for label in named]}) + "\n")
    return "".join(lines)


def sparse_lines(points: Sequence[Point], order: Sequence[int]) -> str:
    """Points in XC sparse layout, features named in descending order."""
    lines = [f"{len(points)} {FEATURES} {LABELS}\n"]
    for point in points:
        named = ",".join(str(label) for label in order if label in point.labels)
        lines.append(f"{named} {feature_pairs(point)}\n")
    return "".join(lines)


def feature_lines(points: Sequence[Point]) -> str:
    """The features of an official pair."""
    return f"{len(points)} {FEATURES}\n" + "".join(feature_pairs(point) + "\n" for point in points)


def label_lines(points: Sequence[Point]) -> str:
    """The labels of an official pair."""
    rows = (zip(point.labels.tolist(), point.relevances.tolist(), strict=True) for point in points)
    return f"{len(points)} {LABELS}\n" + "".join(" ".join(f"{i}:{v!r}" for i, v in row) + "\n" for row in rows)


def feature_pairs(point: Point) -> str:
    assert point.indices is not None
    assert point.values is not None
    pairs = zip(point.indices.tolist(), point.values.tolist(), strict=True)
    return " ".join(f"{index}:{value!r}" for index, value in reversed(list(pairs)))


def write(file: Path, text: str) -> None:
    """Write text, gzipped when the file's name says so."""
    data = text.encode("utf-8")
    file.write_bytes(gzip.compress(data) if file.suffix == ".gz" else data)


def write_raw(folder: Path, points: Sequence[Point], *, suffix: str = ".json", order: Sequence[int] = ()) -> None:
    """Write a folder in XC raw layout with training points only."""
    write(folder / f"trn{suffix}", raw_lines(points, order or range(LABELS)))
    labels = (json.dumps({"uid": f"l{row}", "title": f"label {row}"}) + "\n" for row in range(LABELS))
    write(folder / f"lbl{suffix}", "".join(labels))


def assert_same_points(read: Sequence[Point], written: Sequence[Point]) -> None:
    assert len(read) == len(written)
    for got, expected in zip(read, written, strict=True):
        assert got.text == expected.text
        for name, dtype in (
            ("indices", "int32"),
            ("values", "float32"),
            ("labels", "int32"),
            ("relevances", "float32"),
        ):
            array = getattr(got, name)
            if getattr(expected, name) is None:
                assert array is None
            else:
                assert array.dtype == dtype
                assert_array_equal(array, getattr(expected, name))
