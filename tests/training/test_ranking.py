"""Rankings on disk: what is written comes back, and what is no ranking of the rows at hand is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from training.metrics import PADDING
from training.ranking import WIDTH, RankingError, read_ranking, write_ranking


def usual() -> NDArray[np.int32]:
    ranked_NK = np.full((3, WIDTH), PADDING, dtype=np.int32)
    ranked_NK[:, :4] = [[4, 0, 2, 1], [0, 1, 2, 3], [3, PADDING, PADDING, PADDING]]
    return ranked_NK


@pytest.mark.parametrize("width", [2, WIDTH, WIDTH + 7])
def test_a_ranking_of_any_width_comes_back_in_a_hundred_places(tmp_path: Path, width: int) -> None:
    file = tmp_path / "ranking.npy"
    ranked_NK = np.tile(np.arange(width), (2, 1))
    write_ranking(file, ranked_NK)
    found = read_ranking(file, 2, 200)
    assert found.shape == (2, WIDTH)
    kept = min(width, WIDTH)
    assert (found[:, :kept] == ranked_NK[:, :kept]).all()
    assert (found[:, kept:] == PADDING).all()
    assert [path.name for path in tmp_path.iterdir()] == ["ranking.npy"]


def changed(row: int, place: int, label: int) -> NDArray[np.int32]:
    ranked_NK = usual()
    ranked_NK[row, place] = label
    return ranked_NK


@pytest.mark.parametrize(
    ("ranked", "expected"),
    [
        (usual()[:2], r"expected int32 \(3, 100\).*found int32 \(2, 100\)"),
        (usual()[:, :9], r"found int32 \(3, 9\)"),
        (usual().astype(np.int64), r"found int64 \(3, 100\)"),
        (usual().astype(np.float32), r"found float32"),
        (changed(1, 2, 5), "from 0 to 4, or -1, found 5"),
        (changed(1, 2, -2), "found -2"),
        (changed(1, 2, 0), "every label once in a row, found one twice in row 1"),
    ],
)
def test_what_is_no_ranking_is_refused(tmp_path: Path, ranked: NDArray[np.int32], expected: str) -> None:
    file = tmp_path / "ranking.npy"
    np.save(file, ranked)
    with pytest.raises(RankingError, match=expected):
        read_ranking(file, 3, 5)


def test_a_file_that_is_missing_or_no_array_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RankingError, match=r"none\.npy: expected a \.npy file"):
        read_ranking(tmp_path / "none.npy", 3, 5)
    (tmp_path / "text.npy").write_text("text")
    with pytest.raises(RankingError, match=r"text\.npy: expected a \.npy file"):
        read_ranking(tmp_path / "text.npy", 3, 5)
    (tmp_path / "empty.npy").touch()
    with pytest.raises(RankingError, match=r"empty\.npy: expected a \.npy file"):
        read_ranking(tmp_path / "empty.npy", 3, 5)
