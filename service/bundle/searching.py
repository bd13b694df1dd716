"""The manifest's sections on methods whose labels are searched by inner product, and on how: exactly or in an index."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from service.bundle.strict import Count, Share, Strict

IndexType = Literal["flat", "hnsw", "ivf"]
ApproximateType = Literal["hnsw", "ivf"]


class IndexPoint(Strict):
    """What one choice of parameters was measured to give.

    Attributes:
        type: of the index.
        effort: lists that a search visits (ivf), or vectors that a walk keeps (hnsw); null for exact search.
        candidates: vectors that are scored again by finer codes; null: none are.
        recall: share of the true 100 best that are found.
        p50_ms: median latency of one query on one thread of the machine that built the bundle.
        size_bytes: of the index.
    """

    type: IndexType
    effort: Count | None = None
    candidates: Count | None = None
    recall: Share
    p50_ms: Annotated[float, Field(ge=0.0)]
    size_bytes: Count


class IndexSection(Strict):
    """A vector index, and how it was chosen. Fields that older bundles do not have stay optional, and null in them.

    Attributes:
        type: of the index.
        recall: against exact search, measured at export where the index is approximate.
        recall_at: number of best vectors that the recall counts.
        effort: what a search spends; see `IndexPoint`. The file holds it too.
        candidates: the vectors that a search scores again, whose order is then that of the finer codes.
        leading: coordinates by which an exact search passes over most labels; null: it computes all products whole.
        curve: all that was measured, and no part of the bundle's version.
    """

    type: IndexType
    recall: Share
    recall_at: Annotated[Count, Field(exclude_if=lambda count: count == 10)] = 10
    effort: Count | None = None
    candidates: Count | None = None
    leading: Annotated[Count | None, Field(exclude_if=lambda leading: leading is None)] = None
    curve: Annotated[tuple[IndexPoint, ...], Field(exclude_if=lambda curve: not curve)] = ()


class UnidecSection(Strict):
    """UniDEC: label vectors searched by inner product; ``dimension`` is the width of a whole query vector."""

    name: Literal["unidec"] = "unidec"
    dimension: Count
    index: IndexSection


class OvaSection(Strict):
    """One-vs-all: label classifiers, biases as last dimension, searched by inner product with queries that end in 1."""

    name: Literal["ova"] = "ova"
    dimension: Count
    index: IndexSection


# The methods whose labels are found by a vector index.
SearchSection = UnidecSection | OvaSection
