"""What a label's raw score is made of, by method; the parts add up to it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class BucketPart:
    """One repetition of MACH.

    Attributes:
        bucket: that the label is in.
        score: of the bucket for the query: its logit, or its probability where these are aggregated.
        rank: of the bucket by its score among those of the repetition, from 1; equal ones share the first.
        contribution: to the raw score; 0 where another repetition decided ("min" and "median").
    """

    bucket: int
    score: float
    rank: int
    contribution: float


@dataclass(frozen=True)
class BucketParts:
    """MACH: all repetitions, in order."""

    repetitions: tuple[BucketPart, ...]


@dataclass(frozen=True)
class NeighbourPart:
    """One distinct training row of DECLARE that voted for the label.

    Attributes:
        row: its number.
        text: of the first training row that it stands for; None where it has none, or the bundle carries no texts.
        rows: training rows that it stands for among the neighbours.
        similarity: to the query.
        weight: of its votes.
        vote: for the label.
        contribution: weight times vote.
    """

    row: int
    text: str | None
    rows: int
    similarity: float
    weight: float
    vote: float
    contribution: float


@dataclass(frozen=True)
class NeighbourParts:
    """DECLARE: the rows that voted for the label, nearest first."""

    neighbours: tuple[NeighbourPart, ...]


@dataclass(frozen=True)
class HeadParts:
    """UniDEC: shares of both heads; None for one that is not served."""

    encoder: float | None
    classifier: float | None


@dataclass(frozen=True)
class BiasParts:
    """One-vs-all: the label's bias, and what its classifier's weights make of the query."""

    bias: float
    weights: float


Parts = BucketParts | NeighbourParts | HeadParts | BiasParts
