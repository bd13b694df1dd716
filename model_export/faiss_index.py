"""Building approximate inner-product indexes: how much recall one has is measured, never assumed.

They are tuned to the least search effort that finds at least `WANTED_RECALL` of the true neighbours.

Letters: Q queries, L vectors, D dimensions, K neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import faiss
import numpy as np
from numpy.typing import NDArray

from service.bundle.manifest import ApproximateType, IndexType

IndexChoice = Literal["auto", "flat", "hnsw", "ivf"]
Vectors = NDArray[np.float32]

EXACT_BELOW = 200_000

RECALL_AT = 10
WANTED_RECALL = 0.95
# Fewer sample queries than this measure nothing; label vectors join them up to this number.
FEWEST_QUERIES = 64
# Inner products within this are one product that was rounded in two ways.
ROUNDING = 1e-5

HNSW_LINKS = 32
HNSW_BUILD_EFFORT = 200
HNSW_SEARCH_EFFORTS = (64, 128, 256, 512, 1024)

IVF_LISTS_PER_ROOT = 4
# FAISS asks for this many training vectors a list.
IVF_VECTORS_PER_LIST = 39


def chosen_type(choice: IndexChoice, count: int) -> IndexType:
    """What an index of ``count`` vectors will be; "auto" is exact below `EXACT_BELOW` and HNSW from there on."""
    if choice != "auto":
        return choice
    return "flat" if count < EXACT_BELOW else "hnsw"


def build_index(vectors_LD: Vectors, queries_QD: Vectors, kind: ApproximateType) -> tuple[Any, float]:
    """Build an index by inner product and measure it.

    Args:
        vectors_LD: what is to be found, L at least 1.
        queries_QD: queries as they will be asked.
        kind: type of the index.

    Returns:
        The FAISS index, and its recall at `RECALL_AT` against exact search.
    """
    queries_QD = _enough(queries_QD, vectors_LD)
    if kind == "hnsw":
        index, efforts, spend = _hnsw(vectors_LD)
    else:
        index, efforts, spend = _ivf(vectors_LD)
    for effort in efforts:
        spend(effort)
        measured = recall(index, vectors_LD, queries_QD)
        if measured >= WANTED_RECALL:
            break
    return index, measured


def write_index(index: Any, path: Path) -> None:
    """Write the index as the service reads it, its search effort included."""
    faiss.write_index(index, str(path))


def recall(index: Any, vectors_LD: Vectors, queries_QD: Vectors) -> float:
    """Share of the `RECALL_AT` nearest vectors that the index finds; among equally near ones any will do."""
    count = min(RECALL_AT, len(vectors_LD))
    exact_QK, _ = faiss.knn(queries_QD, vectors_LD, count, metric=faiss.METRIC_INNER_PRODUCT)
    found_QK, _ = index.search(queries_QD, count)
    return float((found_QK >= exact_QK[:, -1:] - ROUNDING).mean())


def _hnsw(vectors_LD: Vectors) -> tuple[Any, tuple[int, ...], Callable[[int], None]]:
    index = faiss.IndexHNSWFlat(vectors_LD.shape[1], HNSW_LINKS, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = HNSW_BUILD_EFFORT
    index.add(np.ascontiguousarray(vectors_LD))

    def spend(effort: int) -> None:
        index.hnsw.efSearch = effort

    return index, HNSW_SEARCH_EFFORTS, spend


def _ivf(vectors_LD: Vectors) -> tuple[Any, tuple[int, ...], Callable[[int], None]]:
    lists = ivf_lists(len(vectors_LD))
    centres = faiss.IndexFlatIP(vectors_LD.shape[1])
    index = faiss.IndexIVFFlat(centres, vectors_LD.shape[1], lists, faiss.METRIC_INNER_PRODUCT)
    index.cp.min_points_per_centroid = 1  # ivf_lists sees to it, but for a single list of fewer
    index.train(np.ascontiguousarray(vectors_LD))
    index.add(np.ascontiguousarray(vectors_LD))

    def spend(effort: int) -> None:
        index.nprobe = effort

    return index, tuple(_doubling(lists)), spend


def ivf_lists(count: int) -> int:
    """Lists of an inverted file: 4 sqrt(L), less where they could not be trained."""
    return max(1, min(round(IVF_LISTS_PER_ROOT * math.sqrt(count)), count // IVF_VECTORS_PER_LIST))


def _doubling(most: int) -> Iterator[int]:
    effort = 1
    while effort < most:
        yield effort
        effort *= 2
    yield most


def _enough(queries_QD: Vectors, vectors_LD: Vectors) -> Vectors:
    missing = FEWEST_QUERIES - len(queries_QD)
    if missing <= 0:
        return np.ascontiguousarray(queries_QD)
    drawn = np.random.default_rng(0).choice(len(vectors_LD), size=min(missing, len(vectors_LD)), replace=False)
    return np.concatenate([queries_QD, vectors_LD[np.sort(drawn)]])
