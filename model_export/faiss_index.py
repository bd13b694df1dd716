"""Building approximate inner-product indexes of 8-bit codes: at most half the bytes of float32 vectors.

Vectors lie near a subspace, and inner products there nearly tell the best. So a search first names candidates by their
projections, and then scores these again by codes of all dimensions. Candidates are found by `ivf`, lists of 4-bit codes
that are looked up for 32 vectors at a time (André, Kermarrec and Le Scouarnec, "Quicker ADC", 2019), or by `hnsw`, a
graph over 8-bit codes (Malkov and Yashunin, 2018).

Letters: L vectors, D dimensions, P of a projection.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from service.bundle.searching import ApproximateType

Vectors = NDArray[np.float32]

# Less misplaces too many of the best, more takes longer to look up.
KEPT_SQUARES = 0.9
# Codes of another number of dimensions are not read by vector instructions, but one by one.
DIMENSIONS_AT_ONCE = 16
VECTORS_PROJECTED_BY = 100_000

CANDIDATES = (200, 400, 800, 1600)

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
    vectors_LD = np.ascontiguousarray(vectors_LD)
    projection = _projection(vectors_LD)
    projected_LP = projection.apply(vectors_LD)
    searched = _hnsw(projected_LP) if kind == "hnsw" else _ivf(projected_LP)
    fine = faiss.index_factory(vectors_LD.shape[1], "SQ8", faiss.METRIC_INNER_PRODUCT)
    fine.train(vectors_LD)
    fine.add(vectors_LD)
    return faiss.IndexRefine(faiss.IndexPreTransform(projection, searched), fine)


def efforts(index: Any) -> Iterator[tuple[int, int]]:
    """What may be spent on a query, as (effort, candidates): cheaper first within equal candidates.

    The effort is the lists that are visited, or the vectors that a walk on the graph keeps.
    """
    searched = _searched(index)
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
    searched = _searched(index)
    if isinstance(searched, faiss.IndexHNSW):
        searched.hnsw.efSearch = effort
    else:
        searched.nprobe = effort


def write_index(index: Any, path: Path) -> None:
    """Write the index as the service reads it, its search effort included."""
    faiss.write_index(index, str(path))


def size_bytes(index: Any) -> int:
    """How large the file will be."""
    return int(faiss.serialize_index(index).nbytes)


def ivf_lists(count: int) -> int:
    """Lists of an inverted file: 4 sqrt(L), less where they could not be trained."""
    return max(1, min(round(IVF_LISTS_PER_ROOT * math.sqrt(count)), count // IVF_VECTORS_PER_LIST))


def _searched(index: Any) -> Any:
    projected: Any = faiss.downcast_index(index.base_index)
    return faiss.downcast_index(projected.index)


def _projection(vectors_LD: Vectors) -> Any:
    """To the directions that keep `KEPT_SQUARES` of the squares; not centred, as inner products are not."""
    some_LD = vectors_LD[:: max(1, len(vectors_LD) // VECTORS_PROJECTED_BY)]
    squares_D, directions_DD = np.linalg.eigh((some_LD.T @ some_LD).astype(np.float64))
    kept_D = np.cumsum(squares_D[::-1]) / max(squares_D.sum(), np.finfo(np.float64).tiny)
    needed = int(np.searchsorted(kept_D, KEPT_SQUARES)) + 1
    width = min(math.ceil(needed / DIMENSIONS_AT_ONCE) * DIMENSIONS_AT_ONCE, len(squares_D))
    projection = faiss.LinearTransform(len(squares_D), width, False)
    matrix_PD = directions_DD[:, ::-1][:, :width].T
    faiss.copy_array_to_vector(np.ascontiguousarray(matrix_PD, dtype=np.float32).ravel(), projection.A)
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
    """From the least (or 1) to the most, in steps of a half or a third: n, 1.5 n, 2 n, 3 n, 4 n ..."""
    step = max(1, least)
    while step < most:
        yield step
        if step < step * 3 // 2 < most:
            yield step * 3 // 2
        step *= 2
    yield most
