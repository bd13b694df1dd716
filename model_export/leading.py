"""Leading coordinates: by how many of them an exact search passes over most labels, see `service.search.leading`.

The axes are those in which the label vectors have most of their squares. Their number is weighed by what a search
costs: the more coordinates, the more numbers are read of every label, and the fewer labels are read whole. That is
counted over sample queries rather than timed, so that the same model gives the same files.

Letters: Q queries, L labels, D dimensions, C leading coordinates.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model_export.axes import main_axes
from model_export.exact_search import write_leading_search
from service.bundle import layout

# Labels that a search is asked for, where nothing asks for more.
ANSWERS = 10
# Fewer numbers are multiplied before anything could be saved.
LEAST_NUMBERS = 1 << 20
STEP = 16
# What it costs to read a number of a label that is read whole, and to pass over a label, as many numbers of a product
# for all labels: measured in batches of 32 queries; of a lone query, products for all labels cost more than that.
WHOLE_COST, LABEL_COST = 20.0, 8.0
# Worth it below this share of what a whole product costs.
WORTH = 0.7


@dataclass(frozen=True)
class Leading:
    """Leading coordinates of label vectors.

    Attributes:
        axes_DC: float32, orthogonal and of length 1.
        coordinates_LC: float32, of the labels.
        rests_L: float32, the length of what is left of each vector, rounded up.
    """

    axes_DC: NDArray[np.float32]
    coordinates_LC: NDArray[np.float32]
    rests_L: NDArray[np.float32]


def choose_leading(vectors_LD: NDArray[np.float32], queries_QD: NDArray[np.float32], answers: int) -> Leading | None:
    """The number of leading coordinates with which searches cost least, or None where they would hardly cost less.

    Args:
        vectors_LD: of the labels.
        queries_QD: a sample.
        answers: how many labels are searched for.
    """
    L, D = vectors_LD.shape
    if vectors_LD.size < LEAST_NUMBERS or len(queries_QD) == 0:
        return None
    axes_DD = main_axes(vectors_LD)[0].T
    turned_LD, turned_QD = vectors_LD @ axes_DD, queries_QD @ axes_DD
    answers = min(answers, L)
    worst_Q = np.partition(turned_QD @ turned_LD.T, L - answers, axis=1)[:, L - answers]
    costs = {
        count: L * (count + LABEL_COST) + WHOLE_COST * D * read
        for count, read in _read_whole(turned_LD, turned_QD, worst_Q)
    }
    best = min(costs, key=lambda count: costs[count], default=D)
    if best == D or costs[best] > WORTH * L * (D + LABEL_COST):
        return None
    return _leading(axes_DD, turned_LD, best)


def leading_of(vectors_LD: NDArray[np.float32], count: int) -> Leading:
    """So many leading coordinates."""
    axes_DD = main_axes(vectors_LD)[0].T
    return _leading(axes_DD, vectors_LD @ axes_DD, count)


def write_leading(folder: Path, vectors_LD: NDArray[np.float32], leading: Leading) -> None:
    """Write the files of a search by leading coordinates."""
    np.save(folder / layout.LABEL_VECTORS, np.ascontiguousarray(vectors_LD, dtype=np.float32))
    np.save(folder / layout.LABEL_RESTS, leading.rests_L)
    graph = folder / layout.LABEL_SEARCH
    write_leading_search(leading.coordinates_LC, leading.axes_DC, folder / layout.LABEL_LEADING, graph)


def _leading(axes_DD: NDArray[np.float64], turned_LD: NDArray[np.float64], count: int) -> Leading:
    rests_L = np.nextafter(_rests(turned_LD, count).astype(np.float32), np.float32(np.inf))
    return Leading(axes_DD[:, :count].astype(np.float32), turned_LD[:, :count].astype(np.float32), rests_L)


def _read_whole(
    turned_LD: NDArray[np.float64], turned_QD: NDArray[np.float64], worst_Q: NDArray[np.float64]
) -> Iterator[tuple[int, float]]:
    """For every number of leading coordinates, how many labels a query reads whole on average."""
    products_QL = np.zeros((len(turned_QD), len(turned_LD)))
    for count in range(STEP, turned_LD.shape[1], STEP):
        products_QL += turned_QD[:, count - STEP : count] @ turned_LD[:, count - STEP : count].T
        bounds_QL = products_QL + _rests(turned_QD, count)[:, None] * _rests(turned_LD, count)
        yield count, float((bounds_QL >= worst_Q[:, None]).sum(axis=1).mean())


def _rests(turned: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    rests: NDArray[np.float64] = np.linalg.norm(turned[:, count:], axis=1)
    return rests
