"""Building approximate inner-product indexes, of 8-bit codes: at most half the bytes of float32 vectors.

`hnsw` is a graph over the codes. `ivf` is lists of coarser codes, 4 bits for each part of a vector, which are looked up
for 32 vectors at a time (André, Kermarrec and Le Scouarnec, "Quicker ADC", 2019); what they name is scored again by the
8-bit codes.

Letters: L vectors, D dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from service.bundle.manifest import ApproximateType

Vectors = NDArray[np.float32]

# 8 bits a dimension cost recall too, by misplacing near neighbours, but little: see `tests/benchmarks/label_search.py`.
CODES = faiss.ScalarQuantizer.QT_8bit

HNSW_LINKS = 16
HNSW_BUILD_EFFORT = 200
HNSW_EFFORTS = (128, 256, 512, 1024, 2048)

IVF_LISTS_PER_ROOT = 2
# FAISS asks for this many training vectors a list.
IVF_VECTORS_PER_LIST = 39
IVF_CANDIDATES = (200, 400, 800)
PART_BITS = 4


def build_index(vectors_LD: Vectors, kind: ApproximateType) -> Any:
    """Build a FAISS index by inner product, with the search effort still to be set.

    Args:
        vectors_LD: what is to be found, L at least 1.
        kind: its type.
    """
    vectors_LD = np.ascontiguousarray(vectors_LD)
    return _hnsw(vectors_LD) if kind == "hnsw" else _ivf(vectors_LD)


def efforts(index: Any) -> Iterator[tuple[int, int | None]]:
    """What may be spent on a query, as (effort, candidates): cheaper first within equal candidates.

    The effort is the lists that are visited, or the vectors that a walk on the graph keeps; candidates are the vectors
    that are scored again, None where no vector is.
    """
    if isinstance(index, faiss.IndexHNSW):
        yield from ((effort, None) for effort in HNSW_EFFORTS)
        return
    lists = faiss.extract_index_ivf(index).nlist
    for candidates in IVF_CANDIDATES:
        # Where the lists visited hold fewer vectors than there are to be candidates, a search looks at all vectors.
        least = max(lists // 64, math.ceil(2 * candidates * lists / index.ntotal))
        yield from ((visited, candidates) for visited in _steps(least, lists))


def spend(index: Any, effort: int) -> None:
    """Set the effort, which is written with the index."""
    if isinstance(index, faiss.IndexHNSW):
        index.hnsw.efSearch = effort
    else:
        faiss.extract_index_ivf(index).nprobe = effort


def write_index(index: Any, path: Path) -> None:
    """Write the index as the service reads it, its search effort included."""
    faiss.write_index(index, str(path))


def size_bytes(index: Any) -> int:
    """How large the file will be."""
    return int(faiss.serialize_index(index).nbytes)


def ivf_lists(count: int) -> int:
    """Lists of an inverted file: 2 sqrt(L), less where they could not be trained."""
    return max(1, min(round(IVF_LISTS_PER_ROOT * math.sqrt(count)), count // IVF_VECTORS_PER_LIST))


def _hnsw(vectors_LD: Vectors) -> Any:
    index: Any = faiss.index_factory(vectors_LD.shape[1], f"HNSW{HNSW_LINKS}_SQ8", faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = HNSW_BUILD_EFFORT
    index.train(vectors_LD)
    index.add(vectors_LD)
    return index


def _ivf(vectors_LD: Vectors) -> Any:
    L, D = vectors_LD.shape
    lists = ivf_lists(L)
    centres = faiss.IndexFlatIP(D)
    coarse = faiss.IndexIVFPQFastScan(centres, D, lists, parts(D), PART_BITS, faiss.METRIC_INNER_PRODUCT)
    # Parts of whole vectors find more than parts of what is left of them beside the centre of their list.
    coarse.by_residual = False
    coarse.cp.max_points_per_centroid = IVF_VECTORS_PER_LIST
    coarse.cp.min_points_per_centroid = coarse.pq.cp.min_points_per_centroid = 1  # no warnings where there are few
    coarse.train(np.resize(vectors_LD, (max(L, 1 << PART_BITS), D)))
    coarse.add(vectors_LD)
    fine = faiss.IndexScalarQuantizer(D, CODES, faiss.METRIC_INNER_PRODUCT)
    fine.train(vectors_LD)
    fine.add(vectors_LD)
    index = faiss.IndexRefine(coarse, fine)

    return index


def parts(dimension: int) -> int:
    """Parts of a vector with a 4-bit code each: of two dimensions, or of one where their number is odd."""
    return dimension // 2 if dimension % 2 == 0 else dimension


def _steps(least: int, most: int) -> Iterator[int]:
    """From the least (or 1) to the most, in steps of a half or a third: n, 1.5 n, 2 n, 3 n, 4 n ..."""
    step = max(1, least)
    while step < most:
        yield step
        if step < step * 3 // 2 < most:
            yield step * 3 // 2
        step *= 2
    yield most
