"""Rankings as files: what `xmc-train evaluate --ranking` writes and `xmc-train compare` scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.metrics import PADDING

WIDTH = 100


class RankingError(Exception):
    """A file holds no ranking of the rows and labels at hand."""


def write_ranking(file: Path, ranked_NK: NDArray[np.int64]) -> None:
    """Write label rows as int32 (N, 100), best first; -1 where there are fewer."""
    kept_NK = np.full((len(ranked_NK), WIDTH), PADDING, dtype=np.int32)
    width = min(WIDTH, ranked_NK.shape[1])
    kept_NK[:, :width] = ranked_NK[:, :width]
    partial = file.with_name(file.name + ".tmp")
    with partial.open("wb") as stream:  # np.save would add a suffix
        np.save(stream, kept_NK, allow_pickle=False)
    partial.replace(file)


def read_ranking(file: Path, rows: int, label_count: int) -> NDArray[np.int64]:
    """Read int64 (N, 100).

    Args:
        file: as `write_ranking` writes it.
        rows: rows that must be ranked, N.
        label_count: labels L.

    Raises:
        RankingError: another shape or type, a label out of range, or one that is ranked twice in a row.
    """
    try:
        ranked_NK = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise RankingError(f"{file}: expected a .npy file: {error}") from error
    if ranked_NK.dtype != np.int32 or ranked_NK.shape != (rows, WIDTH):
        found = f"{ranked_NK.dtype} {ranked_NK.shape}"
        raise RankingError(f"{file}: expected int32 ({rows}, {WIDTH}), one row for each of the split, found {found}")
    if ranked_NK.min() < PADDING or ranked_NK.max() >= label_count:
        worst = ranked_NK.min() if ranked_NK.min() < PADDING else ranked_NK.max()
        raise RankingError(f"{file}: expected label rows from 0 to {label_count - 1}, or -1, found {worst}")
    ordered_NK = np.sort(ranked_NK, axis=1)
    twice_N = ((ordered_NK[:, 1:] == ordered_NK[:, :-1]) & (ordered_NK[:, 1:] != PADDING)).any(axis=1)
    if twice_N.any():
        raise RankingError(f"{file}: expected every label once in a row, found one twice in row {twice_N.argmax()}")
    return np.asarray(ranked_NK, dtype=np.int64)
