"""From measurements to laws: costs that are never negative, with the least relative errors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from scipy.optimize import nnls

from service.planning.constants import ALWAYS, Law, Work

# Work and what it took.
Point = tuple[Work, float]
DIGITS = 4


def fitted(names: Sequence[str], points: Iterable[Point]) -> Law:
    """The law of some amounts of work, and of what is there always.

    Args:
        names: of the work.
        points: work and what it took, above 0.
    """
    points = list(points)
    terms = (ALWAYS, *names)
    rows = np.array([[1.0 if name == ALWAYS else float(work[name]) for name in terms] for work, _ in points])
    found = np.array([taken for _, taken in points])
    # Columns of like size, so that none counts as 0.
    sizes = np.maximum(rows.max(axis=0), 1e-30)
    costs, _ = nnls(rows / found[:, None] / sizes, np.ones(len(points)))
    return Law(
        costs={name: _rounded(cost / size) for name, cost, size in zip(terms, costs, sizes, strict=True)},
        measured={name: float(max(work[name] for work, _ in points)) for name in names},
    )


def _rounded(number: float) -> float:
    return float(f"{number:.{DIGITS}g}")
