"""Golden queries: whether a bundle answers as it did when it was exported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from service.bundle.manifest import FeatureQuery, GoldenAnswer, Precision, ScoredLabel
from service.models.queries import Features, Query

# Largest difference from a golden score, absolute below 1 and relative above. Machines round differently, and 8-bit
# kernels differ between instruction sets.
TOLERANCE: Mapping[Precision, float] = {"fp32": 1e-3, "fp16": 1e-2, "int8": 5e-2}


class Found(NamedTuple):
    """One label of an answer: its id, score, and what the order is by."""

    label: str
    score: float
    key: float


def query_of(golden: GoldenAnswer) -> Query:
    """The query as an engine takes it."""
    if isinstance(golden.query, FeatureQuery):
        return Features(golden.query.indices, golden.query.values)
    return golden.query


def difference(expected: Sequence[ScoredLabel], found: Sequence[Found], precision: Precision) -> str | None:
    """What sets an answer apart from the expected one, or None when nothing does.

    Scores may differ by the tolerance of the precision, and labels whose keys are that close may swap; by keys, because
    calibrated scores belong to ranks as much as to labels.
    """
    tolerance = TOLERANCE[precision]
    if len(expected) != len(found):
        return f"expected {len(expected)} labels, found {len(found)}"
    by_label = {one.label: one for one in found}
    for rank, (wanted, one) in enumerate(zip(expected, found, strict=True), start=1):
        own = by_label.get(wanted.id)
        # A label that is not in the answer may have had to give way to one that ties with it: the last.
        tied = not _apart((own or found[-1]).key, one.key, tolerance)
        # Of labels that swap, calibrated scores stay with the rank, and re-ranked ones go with the label.
        same_score = not all(_apart(wanted.score, either.score, tolerance) for either in (one, own or one))
        if not tied or not same_score:
            return (
                f"expected {wanted.id!r} with {wanted.score:.6g} at rank {rank}, "
                f"found {one.label!r} with {one.score:.6g}"
            )
    return None


def _apart(expected: float, found: float, tolerance: float) -> bool:
    return abs(found - expected) > tolerance * max(1.0, abs(expected))
