"""Building what finds candidates for approximate inner-product search: FAISS indexes of small codes.

Vectors lie near a subspace, and inner products there nearly tell the best. So candidates are found among projections:
by `ivf`, lists of 4-bit codes that are looked up for 32 vectors at a time (André, Kermarrec and Le Scouarnec, "Quicker
ADC", 2019), or by `hnsw`, a graph over 8-bit codes (Malkov and Yashunin, 2018).

Letters: Q queries, L vectors, D dimensions, P of a projection, N lists.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from model_export.axes import Vectors, directions_with
from service.bundle.searching import ApproximateType
from service.search.lists import InvertedLists

# Less misplaces too many of the best, more takes longer to look up.
KEPT_SQUARES = 0.9

CANDIDATES = (200, 400, 800, 1200, 1600)

HNSW_LINKS = 16
HNSW_BUILD_EFFORT = 200
HNSW_EFFORTS = (200, 400, 800, 1600)

IVF_LISTS_PER_ROOT = 4
# FAISS asks for this many training vectors a list.
IVF_VECTORS_PER_LIST = 39
LIST_CODE_BITS = 4


def build_index(vectors_LD: Vectors, kind: ApproximateType) -> Any:
    """Build a FAISS index by inner product, with the search effort still to be set.

    Args:
        vectors_LD: what is to be found, L at least 1.
        kind: how candidates are found.
    """
    projection = _projection(vectors_LD)
    projected_LP = projection.apply(np.ascontiguousarray(vectors_LD))
    return faiss.IndexPreTransform(projection, _hnsw(projected_LP) if kind == "hnsw" else _ivf(projected_LP))


def efforts(index: Any) -> Iterator[tuple[int, int]]:
    """What may be spent on a query, as (effort, candidates): cheaper first within equal candidates.

    The effort is the lists that are visited on average, or the vectors that a walk on the graph keeps.
    """
    searched: Any = faiss.downcast_index(index.index)
    for candidates in CANDIDATES:
        if isinstance(searched, faiss.IndexHNSW):
            steps: Iterator[int] = (effort for effort in HNSW_EFFORTS if effort >= candidates)
        else:
            # Where the lists visited hold fewer vectors than are to be candidates, a search looks at all vectors.
            enough = math.ceil(2 * candidates * searched.nlist / index.ntotal)
            steps = _steps(max(searched.nlist // 64, enough), searched.nlist)
        yield from ((effort, candidates) for effort in steps)


def spend(index: Any, effort: int) -> None:
    """Set the effort, which is written with the index."""
    searched: Any = faiss.downcast_index(index.index)
    if isinstance(searched, faiss.IndexHNSW):
        searched.hnsw.efSearch = effort
    else:
        searched.nprobe = effort  # for who searches the file without a span


def spans(index: Any, queries_QD: Vectors) -> Callable[[int], float | None]:
    """The span with which the queries visit so many lists on average, see `service.search.lists`; None for a graph."""
    if isinstance(faiss.downcast_index(index.index), faiss.IndexHNSW):
        return lambda _: None
    gaps = np.sort(InvertedLists(index, span=0.0).gaps(queries_QD), axis=None)
    return lambda effort: max(0.0, float(gaps[len(queries_QD) * effort - 1]))


def write_index(index: Any, path: Path) -> None:
    """Write the index as the service reads it, its search effort included."""
    faiss.write_index(index, str(path))


def size_bytes(index: Any) -> int:
    """How large the file will be."""
    return int(faiss.serialize_index(index).nbytes)


def ivf_lists(count: int) -> int:
    """Lists of an inverted file: 4 sqrt(L), less where they could not be trained."""
    return max(1, min(round(IVF_LISTS_PER_ROOT * math.sqrt(count)), count // IVF_VECTORS_PER_LIST))


def _projection(vectors_LD: Vectors) -> Any:
    """To the directions that keep `KEPT_SQUARES` of the squares."""
    directions_PD = directions_with(KEPT_SQUARES, vectors_LD)
    projection = faiss.LinearTransform(directions_PD.shape[1], len(directions_PD), False)
    faiss.copy_array_to_vector(directions_PD.ravel(), projection.A)
    projection.is_trained = True
    return projection


def _hnsw(vectors_LP: Vectors) -> Any:
    index: Any = faiss.index_factory(vectors_LP.shape[1], f"HNSW{HNSW_LINKS}_SQ8", faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = HNSW_BUILD_EFFORT
    index.train(vectors_LP)
    index.add(vectors_LP)
    return index


def _ivf(vectors_LP: Vectors) -> Any:
    """Every dimension has a code, of the vector itself: what is left beside its list's centre has no more pattern."""
    L, P = vectors_LP.shape
    centres = faiss.IndexFlatIP(P)
    index = faiss.IndexIVFPQFastScan(centres, P, ivf_lists(L), P, LIST_CODE_BITS, faiss.METRIC_INNER_PRODUCT)
    index.by_residual = False
    index.cp.max_points_per_centroid = IVF_VECTORS_PER_LIST
    index.cp.min_points_per_centroid = index.pq.cp.min_points_per_centroid = 1  # no warnings where there are few
    index.train(vectors_LP if L >= 1 << LIST_CODE_BITS else np.resize(vectors_LP, (1 << LIST_CODE_BITS, P)))
    index.add(vectors_LP)
    return index


def _steps(least: int, most: int) -> Iterator[int]:
    """From the least (or 1) to the most, in steps of a quarter to a seventh: n, 1.25 n, 1.5 n, 1.75 n, 2 n ..."""
    base, done = max(1, least), 0
    while base < most:
        for step in (base * quarters // 4 for quarters in range(4, 8)):
            if done < step < most:
                yield step
                done = step
        base *= 2
    yield most
