"""FAISS's file of candidates, as export builds it: lists of 4-bit codes, or a graph over 8-bit codes.

Letters: L vectors, D dimensions, P of the projection that is searched, N lists.
"""

from __future__ import annotations

import math

from service.planning.workload import Workload

# As in export: lists of an inverted file, of which each is trained with so many vectors; links of a graph.
LISTS_PER_ROOT, VECTORS_PER_LIST, LINKS = 4, 39, 16
# Kernels read so many dimensions at a time, and lists of codes so many vectors.
AT_ONCE, BLOCK = 16, 32
FLOAT, LINK, ROW, COUNT = 4, 4, 8, 8
CENTRES_OF_A_CODE = 16


def index_bytes(workload: Workload, projection_share: float) -> int:
    """Size of the index's file; 0 where labels are found in another way."""
    projection = projected(workload, projection_share)
    turned = FLOAT * projection * workload.dimension
    if workload.index == "ivf":
        return turned + _lists_bytes(workload.labels, projection)
    if workload.index == "hnsw":
        return turned + _graph_bytes(workload.labels, projection)
    return 0


def projected(workload: Workload, share: float) -> int:
    """P."""
    return min(workload.dimension, math.ceil(share * workload.dimension / AT_ONCE) * AT_ONCE)


def codes(workload: Workload) -> int:
    """Numbers of 8 bits in a vector's codes; where export prefers 16 bits, there are half as many."""
    return workload.dimension


def ivf_lists(labels: int) -> int:
    """N, as export chooses it."""
    return max(1, min(round(LISTS_PER_ROOT * math.sqrt(labels)), labels // VECTORS_PER_LIST))


def _lists_bytes(labels: int, projection: int) -> int:
    """Codes in full blocks, of which each list wastes half of one; rows; centres of lists and of codes."""
    lists = ivf_lists(labels)
    vectors = labels + lists * BLOCK // 2
    return (
        math.ceil(projection / 2) * vectors
        + ROW * labels
        + (FLOAT * projection + 2 * COUNT) * lists
        + FLOAT * projection * CENTRES_OF_A_CODE
    )


def _graph_bytes(labels: int, projection: int) -> int:
    """Codes; links, twice as many on the ground floor; a floor has one of so many vectors of the floor below."""
    links = 2 * LINKS + LINKS / (LINKS - 1)
    return round(labels * (projection + LINK * links + COUNT + LINK))
