from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from model_export import leading
from model_export.leading import choose_leading, leading_of, write_leading
from tests.service.search.test_leading import DIMENSION, drawn

LABELS = 3000


@pytest.fixture(autouse=True)
def _few_numbers_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leading, "LEAST_NUMBERS", LABELS * DIMENSION)
    monkeypatch.setattr(leading, "STEP", 2)


def test_vectors_that_lie_in_few_directions_have_few_leading_coordinates() -> None:
    counts = []
    for falling in (0.5, 0.7, 0.8):
        chosen = choose_leading(drawn(LABELS, falling), drawn(50, falling, seed=1), 5)
        assert chosen is not None
        counts.append(chosen.axes_DC.shape[1])
    assert counts == sorted(counts)
    assert counts[0] < DIMENSION / 4


def test_more_answers_want_more_coordinates() -> None:
    few, many = (choose_leading(drawn(LABELS), drawn(50, seed=1), answers) for answers in (2, 200))
    assert few is not None
    assert many is None or many.axes_DC.shape[1] > few.axes_DC.shape[1]


@pytest.mark.parametrize(("labels", "queries", "falling"), [(LABELS, 50, 1.0), (LABELS - 1, 50, 0.7), (LABELS, 0, 0.7)])
def test_where_there_is_nothing_to_gain_there_are_none(labels: int, queries: int, falling: float) -> None:
    """Vectors that lie everywhere, few vectors, and no queries to count by."""
    assert choose_leading(drawn(labels, falling), drawn(queries, falling, seed=1), 5) is None


def test_the_rest_is_never_too_short() -> None:
    vectors_LD = drawn(LABELS)
    for count in (1, 6, DIMENSION):
        chosen = leading_of(vectors_LD, count)
        axes_DC = chosen.axes_DC.astype(np.float64)
        np.testing.assert_allclose(axes_DC.T @ axes_DC, np.eye(count), atol=1e-6)
        left_LD = vectors_LD - (vectors_LD @ axes_DC) @ axes_DC.T
        lengths_L = np.linalg.norm(vectors_LD, axis=1)
        assert (chosen.rests_L >= np.linalg.norm(left_LD, axis=1) - 1e-6 * lengths_L).all()
        np.testing.assert_allclose(chosen.coordinates_LC, vectors_LD @ axes_DC, atol=1e-5)


def test_equal_vectors_make_equal_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_leading(tmp_path / name, drawn(LABELS), leading_of(drawn(LABELS), 6))
    files = [{file.name: file.read_bytes() for file in (tmp_path / name).iterdir()} for name in ("a", "b")]
    assert files[0] == files[1]
    assert len(files[0]) == 4
