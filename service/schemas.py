"""Requests and answers of the HTTP interface: the only place where the names of JSON fields appear.

Requests are parsed by these models. Answers on the hot path are written from `encode_prediction` directly, because a
model would cost more than the rest of the request; a test holds its output against `PredictResponse`. The names of the
Open Inference Protocol, which is not ours, are in `service.inference.schemas`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Self

import numpy as np
import orjson
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from service.bundle import LabelTable
from service.errors import InvalidRequest
from service.explanations import AnyExplanation
from service.models.queries import Features, Filter
from service.parsing import parse
from service.settings import Settings

LARGEST_FLOAT32 = float(np.finfo(np.float32).max)
LONGEST_TIMEOUT_MS = 3_600_000

Float32 = Annotated[float, Field(ge=-LARGEST_FLOAT32, le=LARGEST_FLOAT32)]


class FeatureVector(BaseModel):
    """A sparse query: `values[i]` at feature `indices[i]`."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    indices: list[Annotated[int, Field(ge=0)]] = Field(description="Distinct feature numbers, in any order.")
    values: list[Float32] = Field(description="One value for each index.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.indices) != len(self.values):
            raise ValueError(f"expected as many values as indices, found {len(self.values)} and {len(self.indices)}")
        if len(set(self.indices)) != len(self.indices):
            raise ValueError("expected distinct indices, found one twice")
        return self


class LabelFilter(BaseModel):
    """Which labels may be answered: those in `allow` and in one of `groups`, where these are given, and not in `deny`.

    The labels that are left have the scores and the order that they have without a filter.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    allow: Annotated[list[str], Field(min_length=1)] | None = Field(None, description="Ids of labels.")
    deny: list[str] | None = Field(None, description="Ids of labels.")
    groups: Annotated[list[str], Field(min_length=1)] | None = Field(
        None, description="Names of the model's groups of labels, which `GET /v1/models/{name}` lists."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.allow is None and self.deny is None and self.groups is None:
            raise ValueError("expected allow, deny or groups, found none of them")
        return self

    def packed(self) -> Filter:
        """As it is sent to the model."""
        allow, deny = (None if ids is None else orjson.dumps(ids) for ids in (self.allow, self.deny))
        return allow, deny, None if self.groups is None else tuple(self.groups)


class PredictRequest(BaseModel):
    """The body of `POST /predict`: `queries` for text bundles or `features` for feature bundles."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        json_schema_extra={"examples": [{"queries": ["a fast web server"], "k": 5}]},
    )

    queries: list[str] | None = Field(None, description="Texts to label.")
    features: list[FeatureVector] | None = Field(None, description="Sparse vectors to label.")
    k: int = Field(5, ge=1, description="Labels wanted for each query, at most XMC_MAX_K.")
    model: str | None = Field(None, description='"name" or "name:version"; may be left out when one model is loaded.')
    filter: LabelFilter | None = Field(None, description="Only some labels.")
    min_score: Float32 | None = Field(None, description="Only labels with at least this score.")
    explain: bool = Field(False, description="Also say what each score is made of.")
    partial: bool = Field(
        False, description="Rather the best of the labels that can be searched than 503, where a shard does not answer."
    )
    timeout_ms: Annotated[int, Field(ge=1, le=LONGEST_TIMEOUT_MS)] | None = Field(
        None, description="After so many milliseconds the answer is worthless: 504 comes instead."
    )


class ScoredLabel(BaseModel):
    """One label of an answer."""

    id: str
    text: str | None = Field(None, description="Left out when the bundle has no label texts.")
    zero_shot: bool | None = Field(
        None, description="True for a label that was added from its text and never trained; else left out."
    )
    score: float = Field(
        description="Probability that the label is relevant if the model's scores are calibrated, else as its method "
        "computes it; `GET /v1/models/{name}` tells which."
    )
    explanation: AnyExplanation | None = Field(None, description="What the score is made of, where that was asked.")


class Prediction(BaseModel):
    """The answer to one query, best label first, ties by label row."""

    labels: list[ScoredLabel]
    partial: bool | None = Field(
        None, description="True where some shards did not answer, and that was asked for; else left out."
    )


class PredictResponse(BaseModel):
    """The answer to `POST /predict`: one prediction for each query, in order."""

    model: str
    version: str
    predictions: list[Prediction]


class Problem(BaseModel):
    """An error (RFC 9457), sent as `application/problem+json`."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    request_id: str


class ModelSummary(BaseModel):
    """One loaded model."""

    name: str
    version: str = Field(description="Digest of everything in the bundle that decides an answer.")
    method: str
    input: str = Field(description='"text" or "features".')
    label_count: int
    device: str
    ready: bool
    weight: float = Field(
        description="Requests that name only the model are shared among its versions in proportion to their weights; "
        "with 0 a version answers those alone that name it."
    )
    shadow: float = Field(
        description="Share of the model's requests that this version is asked as well; its answers are only compared."
    )


class ModelDetail(ModelSummary):
    """One loaded model with everything worth knowing about it; what there is not is left out."""

    providers: list[str] = Field(description="Execution providers of ONNX Runtime, first choice first.")
    precision: str
    groups: dict[str, int] = Field(description="Groups of labels that a filter may name, and how many labels each has.")
    scores: str = Field(description='"calibrated" when scores are probabilities, else "raw".')
    propensity_weight: float | None = Field(
        None,
        description="Where labels that annotators miss are preferred: the power of their inverse propensity. Scores "
        "then need not fall from one label to the next.",
    )
    method_section: dict[str, Any] = Field(description="The method's section of the manifest.")
    rerank_section: dict[str, Any] | None = Field(
        None,
        description="The manifest's section on the word classifiers that order the method's answers anew, where there "
        "are some.",
    )
    index: str | None = Field(None, description="Type of the vector index, where there is one.")
    recall: float | None = Field(None, description="Recall of that index against exact search, measured at export.")
    recall_at: int | None = Field(None, description="Number of best labels that the recall counts.")
    parity: dict[str, Any] | None = Field(
        None, description="Agreement with the reference implementation, measured at export."
    )
    created_with: dict[str, str]
    examples: list[str | FeatureVector] = Field(description="The golden queries: what a query may look like.")


class ModelList(BaseModel):
    """All loaded models in the order in which they were given."""

    models: list[ModelSummary]


def parse_predict(body: bytes, settings: Settings) -> PredictRequest:
    """Read and check the body of `POST /predict`, as far as that is possible without its model.

    Raises:
        MalformedBody: the body is not JSON.
        InvalidRequest: it is JSON of the wrong shape, or a value is out of range; the sentence names the field.
    """
    request = parse(PredictRequest, body)
    if (request.queries is None) == (request.features is None):
        found = "neither" if request.queries is None else "both"
        raise InvalidRequest(f"expected either queries or features, found {found}")
    check_predict(request, settings)
    return request


def check_predict(request: PredictRequest, settings: Settings) -> None:
    """Hold the values of a request whose shape is right against the settings.

    Raises:
        InvalidRequest: a value is out of range; the sentence names the field.
    """
    name, rows = ("queries", request.queries) if request.queries is not None else ("features", request.features or [])
    check_count(name, len(rows), settings)
    if request.k > settings.max_k:
        raise InvalidRequest(f"k: expected at most {settings.max_k}, found {request.k}")
    for position, text in enumerate(request.queries or ()):
        if not text or text.isspace():
            raise InvalidRequest(f"queries[{position}]: expected a text, found an empty one")
        if len(text) > settings.max_query_chars:
            raise InvalidRequest(
                f"queries[{position}]: expected at most {settings.max_query_chars} characters, found {len(text)}"
            )
    for position, vector in enumerate(request.features or ()):
        if not vector.indices:
            raise InvalidRequest(f"features[{position}]: expected at least one index, found none")
        if len(vector.indices) > settings.max_features:
            raise InvalidRequest(
                f"features[{position}]: expected at most {settings.max_features} features, found {len(vector.indices)}"
            )


def check_count(name: str, count: int, settings: Settings) -> None:
    """Hold the number of entries of a request's `name` against the settings.

    Raises:
        InvalidRequest: there are too many or none.
    """
    if not 1 <= count <= settings.max_queries:
        raise InvalidRequest(f"{name}: expected 1 to {settings.max_queries} entries, found {count}")


def feature_queries(vectors: Sequence[FeatureVector], dimension: int) -> list[Features]:
    """Feature vectors as the engine takes them.

    Raises:
        InvalidRequest: an index is not below the model's number of features.
    """
    for position, vector in enumerate(vectors):
        largest = max(vector.indices)
        if largest >= dimension:
            raise InvalidRequest(f"features[{position}].indices: expected numbers below {dimension}, found {largest}")
    return [Features(vector.indices, vector.values) for vector in vectors]


def encode_prediction(
    labels: LabelTable,
    ids_K: NDArray[np.int64],
    scores_K: NDArray[np.float32],
    min_score: float | None,
    explain: Callable[[NDArray[np.int64], NDArray[np.float32]], Sequence[bytes]] | None = None,
    *,
    partial: bool = False,
) -> bytes:
    """A `Prediction` as JSON; scores are written with the digits that 32 bits hold.

    Args:
        labels: of the model.
        ids_K: label rows, best first.
        scores_K: their scores.
        min_score: leave out labels below it. Compared in 32 bits: a score that prints as 0.9 passes 0.9.
        explain: gives the explanations of labels that are left, as JSON; None where nobody asks.
        partial: whether labels may be missing.
    """
    if min_score is not None:
        kept_K = scores_K >= np.float32(min_score)
        ids_K, scores_K = ids_K[kept_K], scores_K[kept_K]
    end = b',"partial":true}' if partial else b"}"
    if not ids_K.size:
        return b'{"labels":[]' + end
    scores = orjson.dumps(scores_K, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1].split(b",")
    # A record has all of a `ScoredLabel` but the score.
    records = labels.open_records(ids_K.tolist())
    scored = [record + b',"score":' + score for record, score in zip(records, scores, strict=True)]
    if explain is not None:
        explanations = explain(ids_K, scores_K)
        scored = [b'%b,"explanation":%b' % pair for pair in zip(scored, explanations, strict=True)]
    return b'{"labels":[' + b"},".join(scored) + b"}]" + end


def decode_prediction(body: bytes) -> list[tuple[str, str, float]]:
    """Id, text ("" where the bundle has none) and score of each label in the JSON of a `Prediction`, in order."""
    return [(label["id"], label.get("text", ""), label["score"]) for label in orjson.loads(body)["labels"]]


def encode_response(model: str, version: str, predictions: Sequence[bytes]) -> bytes:
    """A `PredictResponse` as JSON, of predictions that are JSON already."""
    head = orjson.dumps({"model": model, "version": version})
    return b'%b,"predictions":[%b]}' % (head[:-1], b",".join(predictions))


def label_ids(prediction: bytes) -> set[str]:
    """The labels of a `Prediction` that is JSON."""
    return {label["id"] for label in orjson.loads(prediction)["labels"]}


def labels_and_scores(prediction: bytes) -> tuple[list[str], list[float]]:
    """Ids and scores of a `Prediction` that is JSON, best first."""
    labels = orjson.loads(prediction)["labels"]
    return [label["id"] for label in labels], [label["score"] for label in labels]
