"""The manifest's sections on methods whose labels are searched by inner product, and on how: exactly or in an index."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from service.bundle.strict import Count, Share, Strict

IndexType = Literal["flat", "hnsw", "ivf"]
ApproximateType = Literal["hnsw", "ivf"]
Span = Annotated[float, Field(ge=0.0)]


class IndexPoint(Strict):
    """What one choice of parameters was measured to give.

    Attributes:
        type: of the index.
        effort: lists that a search visits on average (ivf), or vectors that a walk keeps (hnsw); null for exact search.
        span: see `IndexSection`.
        candidates: vectors that are scored by their codes; null for exact search.
        recall: share of the true 100 best that are found.
        p50_ms: median latency of one query on one thread of the machine that built the bundle.
        size_bytes: of the index.
    """

    type: IndexType
    effort: Count | None = None
    span: Span | None = None
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
        effort: what a search spends; see `IndexPoint`. Of a walk, the file holds it too.
        span: how far the product of a list's centre may be below the tenth best for the list to be visited (ivf).
        candidates: the vectors that a search scores by their codes; null for exact search.
        directions: numbers in a vector's codes; null for exact search.
        leading: coordinates by which an exact search passes over most labels; null: it computes all products whole.
        curve: all that was measured, and no part of the bundle's version.
    """

    type: IndexType
    recall: Share
    recall_at: Annotated[Count, Field(exclude_if=lambda count: count == 10)] = 10
    effort: Count | None = None
    span: Annotated[Span | None, Field(exclude_if=lambda span: span is None)] = None
    candidates: Count | None = None
    directions: Annotated[Count | None, Field(exclude_if=lambda directions: directions is None)] = None
    leading: Annotated[Count | None, Field(exclude_if=lambda leading: leading is None)] = None
    curve: Annotated[tuple[IndexPoint, ...], Field(exclude_if=lambda curve: not curve)] = ()

    @model_validator(mode="after")
    def _has_what_its_type_needs(self) -> Self:
        for name, count in (("candidates", self.candidates), ("directions", self.directions)):
            if (self.type == "flat") != (count is None):
                raise ValueError(f"{name}: expected null with type flat alone, found {count} with {self.type}")
        if (self.type == "ivf") != (self.span is not None):
            raise ValueError(f"span: expected a number with type ivf alone, found {self.span} with {self.type}")
        return self


class LabelReading(Strict):
    """How the graph reads the text of a label, so that labels can be added while a bundle is served.

    Attributes:
        max_tokens: those after are cut off; all else is as for queries.
        output: of the graph, that holds the dual encoder's vector at any length: "query", the first half of it where
            both heads are served, or "label", where label texts pass a projection of their own.
        scale: the score of an added label as a share of its encoder's cosine. Where both heads are served, answers have
            on average so much of theirs: the encoder alone would be too sure of what it picks. 1 is not written.
    """

    max_tokens: Count
    output: Literal["query", "label"]
    scale: Annotated[float, Field(gt=0.0, exclude_if=lambda scale: scale == 1)] = 1.0


class UnidecSection(Strict):
    """UniDEC: label vectors searched by inner product; ``dimension`` is the width of a whole query vector.

    ``heads`` says whose vectors they are; of both, the dual encoder's are the first half. Null: not known, in bundles
    from before this field. ``reading`` is null in those, too, and where the classifier alone is served.
    """

    name: Literal["unidec"] = "unidec"
    dimension: Count
    heads: Annotated[Literal["encoder", "classifier", "both"] | None, Field(exclude_if=lambda heads: heads is None)] = (
        None
    )
    reading: Annotated[LabelReading | None, Field(exclude_if=lambda reading: reading is None)] = None
    index: IndexSection

    @model_validator(mode="after")
    def _has_a_dual_encoder_to_read_with(self) -> Self:
        if self.reading is not None and self.heads not in ("encoder", "both"):
            raise ValueError(
                f"reading: expected null where no dual encoder is served, found it with heads {self.heads}"
            )
        return self


class OvaSection(Strict):
    """One-vs-all: label classifiers, biases as last dimension, searched by inner product with queries that end in 1."""

    name: Literal["ova"] = "ova"
    dimension: Count
    index: IndexSection


# The methods whose labels are found by a vector index.
SearchSection = UnidecSection | OvaSection
