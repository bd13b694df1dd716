"""Why a label has its score, in the words of the HTTP interface: with `schemas` all names of JSON fields there are.

From the parts of the method (`decoders.parts`) to the raw score, through re-ranking and calibration, to what is served.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field, TypeAdapter

if TYPE_CHECKING:  # the process that speaks HTTP computes nothing
    from service.explaining import Explained, Explainer


class RerankPart(BaseModel):
    """What re-ranking by words makes of the raw score."""

    own: float = Field(
        description="The method's share: of a label that words nominated, that of the last candidate; beyond the "
        "candidates held down to the score of the label before."
    )
    words: float = Field(description="The share of the label's word classifier; 0 beyond the candidates.")
    score: float = Field(description="Their sum, by which labels are ranked.")


class CalibrationPart(BaseModel):
    """Which probability a score stands for."""

    score: float = Field(description="That is mapped: raw or re-ranked.")
    probability: float = Field(description="By the map of the rank, held down to that of the rank before.")


class Explanation(BaseModel):
    """What is common to all methods."""

    raw: float = Field(description="The method's own score, the sum of its parts.")
    rank: int = Field(description="Place among all labels, from 1, by raw or re-ranked score.")
    rerank: RerankPart | None = Field(None, description="Left out where the model has no word classifiers.")
    calibration: CalibrationPart | None = Field(None, description="Left out where raw scores are served.")


class Repetition(BaseModel):
    """A repetition of MACH."""

    bucket: int = Field(description="That the label is in.")
    score: float = Field(description="Of the bucket: its logit, or its probability where these are aggregated.")
    rank: int = Field(description="Of the bucket among all of the repetition, from 1.")
    contribution: float = Field(
        description="To the raw score. With min and median only the repetitions that decided contribute."
    )


class MachExplanation(Explanation):
    """MACH: the label's buckets, one a repetition."""

    method: Literal["mach"] = "mach"
    aggregation: str
    repetitions: list[Repetition]


class Neighbour(BaseModel):
    """A training row, or several with the same labels, that voted for the label."""

    row: int = Field(description="Number of the distinct row.")
    text: str | None = Field(
        None, description="Of the first training row that it is, or its beginning; left out where the bundle has none."
    )
    rows: int = Field(description="Training rows that it stands for among the neighbours.")
    similarity: float
    weight: float
    vote: float
    contribution: float = Field(description="To the raw score: weight times vote.")


class DeclareExplanation(Explanation):
    """DECLARE: the neighbours that voted for the label, nearest first."""

    method: Literal["declare"] = "declare"
    neighbours: list[Neighbour]


class UnidecExplanation(Explanation):
    """UniDEC: what each head contributes to the raw score."""

    method: Literal["unidec"] = "unidec"
    encoder: float | None = Field(None, description="Left out where the dual encoder is not served.")
    classifier: float | None = Field(None, description="Left out where the classifier is not served.")


class OvaExplanation(Explanation):
    """One-vs-all: what the label's bias and weights contribute to the raw score."""

    method: Literal["ova"] = "ova"
    bias: float
    weights: float


AnyExplanation = Annotated[
    MachExplanation | DeclareExplanation | UnidecExplanation | OvaExplanation, Field(discriminator="method")
]
_ANY: TypeAdapter[Explanation] = TypeAdapter(AnyExplanation)


def encode_explanations(
    section: dict[str, Any], explainer: Explainer, ids_K: NDArray[np.int64], scores_K: NDArray[np.float32]
) -> list[bytes]:
    """The explanations of some labels of an answer as JSON.

    Args:
        section: the manifest's, of the method.
        explainer: of the query.
        ids_K: label rows.
        scores_K: as they are served.
    """
    return [_encoded(section, one) for one in explainer.explain(ids_K, scores_K)]


def _encoded(section: dict[str, Any], explained: Explained) -> bytes:
    fields = asdict(explained.parts) | {"method": section["name"], "raw": explained.raw, "rank": explained.rank}
    if section["name"] == "mach":
        fields["aggregation"] = section["aggregation"]
    if explained.reranked is not None:
        own, words = explained.reranked
        fields["rerank"] = {"own": own, "words": words, "score": own + words}
    if explained.calibrated is not None:
        score, probability = explained.calibrated
        fields["calibration"] = {"score": score, "probability": probability}
    return _ANY.dump_json(_ANY.validate_python(fields), exclude_none=True)
