"""A random data set, written in each layout, is read back as it was."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.training.data.datasets import (
    FEATURES,
    LABELS,
    assert_same_points,
    feature_lines,
    feature_points,
    label_lines,
    sparse_lines,
    text_points,
    write,
    write_raw,
)
from training.data.points import Point
from training.data.records import Card, open_source

orders = st.permutations(range(LABELS))


@given(st.lists(text_points(), min_size=1), orders, st.sampled_from([".json", ".jsonl", ".json.gz", ".jsonl.gz"]))
def test_raw_round_trip(
    tmp_path_factory: pytest.TempPathFactory, points: list[Point], order: Sequence[int], suffix: str
) -> None:
    folder = tmp_path_factory.mktemp("raw")
    write_raw(folder, points, suffix=suffix, order=order)
    source = open_source(folder)
    assert_same_points(list(source.points("trn")), points)
    assert source.card == Card(folder.name, "text", LABELS, None, has_label_texts=True)
    assert source.label_ids == [f"l{row}" for row in range(LABELS)]
    assert source.label_texts == [f"label {row}" for row in range(LABELS)]


@given(
    st.lists(feature_points(weighted=False), min_size=1),
    orders,
    st.sampled_from(["", "name_"]),
    st.sampled_from(["", ".gz"]),
)
def test_sparse_round_trip(
    tmp_path_factory: pytest.TempPathFactory, points: list[Point], order: Sequence[int], prefix: str, suffix: str
) -> None:
    folder = tmp_path_factory.mktemp("sparse")
    write(folder / f"{prefix}train.txt{suffix}", sparse_lines(points, order))
    write(folder / f"{prefix}test.txt{suffix}", sparse_lines(points[:1], order))
    source = open_source(folder)
    assert_same_points(list(source.points("trn")), points)
    assert_same_points(list(source.points("tst")), points[:1])
    assert source.card == Card(folder.name, "features", LABELS, FEATURES, has_label_texts=False)
    assert source.label_ids == [str(row) for row in range(LABELS)]


@given(st.lists(feature_points(weighted=True), min_size=1), st.sampled_from(["", ".gz"]))
def test_pairs_round_trip(tmp_path_factory: pytest.TempPathFactory, points: list[Point], suffix: str) -> None:
    folder = tmp_path_factory.mktemp("pairs")
    for split, rows in (("trn", points), ("tst", points[:1])):
        write(folder / f"{split}_X_Xf.txt{suffix}", feature_lines(rows))
        write(folder / f"{split}_X_Y.txt{suffix}", label_lines(rows))
    source = open_source(folder)
    assert_same_points(list(source.points("trn")), points)
    assert_same_points(list(source.points("tst")), points[:1])
    assert source.card == Card(folder.name, "features", LABELS, FEATURES, has_label_texts=False)
