"""The strict model of ``manifest.json``: what a bundle says about itself.

One tagged union holds a section per method, told apart by ``name``. Unknown keys, numbers given as strings and infinite
values are refused: a manifest that an older or newer program wrote is never half understood.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

SCHEMA_VERSION = 1

Count = Annotated[int, Field(ge=1)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Version = Annotated[str, Field(pattern=r"^[0-9a-f]{12}$")]
BundleName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=128)]

Aggregation = Literal["sum_logits", "mean_prob", "unbiased", "min", "median"]
Activation = Literal["sigmoid", "softmax"]
Recovery = Literal["factors", "rows"]
IndexType = Literal["flat", "hnsw", "ivf"]
Precision = Literal["fp32", "fp16", "int8"]
Order = Literal["bag", "sequence"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class TextInput(_Strict):
    """Queries are texts; tokens after the first ``max_tokens`` are cut off.

    ``order`` says what the encoder reads: a bag (distinct ids with counts), or a sequence (ids in reading order,
    between the tokenizer's special tokens). "bag" is not written: bundles from before this field keep their version.
    """

    kind: Literal["text"] = "text"
    max_tokens: Count
    order: Annotated[Order, Field(exclude_if=lambda order: order == "bag")] = "bag"


class FeaturesInput(_Strict):
    """Queries are sparse vectors with indices in ``0 .. dimension - 1``."""

    kind: Literal["features"] = "features"
    dimension: Count


class HashSection(_Strict):
    """The hash that put the labels into buckets; repetition r used ``seed + r``."""

    family: Literal["murmur3_x86_32"] = "murmur3_x86_32"
    key: Literal["label row, uint32 little-endian"] = "label row, uint32 little-endian"
    seed: Annotated[int, Field(ge=0)]


class MachSection(_Strict):
    """MACH: R repetitions of B buckets, whose scores are gathered and aggregated for each label."""

    name: Literal["mach"] = "mach"
    repetitions: Count
    buckets: Annotated[int, Field(ge=2)]
    aggregation: Aggregation
    activation: Activation
    hash: HashSection


class DeclareSection(_Strict):
    """DECLARE: nearest training rows in a space of ``rank`` dimensions vote with their labels."""

    name: Literal["declare"] = "declare"
    rank: Count
    neighbours: Count
    recovery: Recovery


class IndexSection(_Strict):
    """A vector index and its recall at 10 against exact search, as measured at export."""

    type: IndexType
    recall: Annotated[float, Field(ge=0.0, le=1.0)]


class UnidecSection(_Strict):
    """UniDEC: label vectors searched by inner product; ``dimension`` is the width of a whole query vector."""

    name: Literal["unidec"] = "unidec"
    dimension: Count
    index: IndexSection


Input = Annotated[TextInput | FeaturesInput, Field(discriminator="kind")]
MethodSection = Annotated[MachSection | DeclareSection | UnidecSection, Field(discriminator="name")]


class FileEntry(_Strict):
    """One file; dtype (numpy's name, little-endian) and shape are given for arrays and null for the rest."""

    size: Annotated[int, Field(ge=0)]
    sha256: Sha256
    dtype: str | None = None
    shape: tuple[Annotated[int, Field(ge=0)], ...] | None = None


class Parity(_Strict):
    """How far the bundle's answers are from the reference implementation's, over held-out queries."""

    queries: Count
    k: Count
    max_score_difference: Annotated[float, Field(ge=0.0)]
    equal_top_k: Annotated[float, Field(ge=0.0, le=1.0)]


class FeatureQuery(_Strict):
    """A sparse query as it is stored in a manifest."""

    indices: tuple[int, ...]
    values: tuple[float, ...]


class ScoredLabel(_Strict):
    """One label of an answer, by its public id."""

    id: str
    score: float


class GoldenAnswer(_Strict):
    """A query and the answer, best first, that the bundle gave when it was exported."""

    query: str | FeatureQuery
    labels: Annotated[tuple[ScoredLabel, ...], Field(min_length=1)]


class Manifest(_Strict):
    """The whole of ``manifest.json``.

    Attributes:
        schema_version: version of this format; the reader knows exactly one.
        name: name under which the service offers the model.
        version: digest of everything that decides an answer (see ``service.bundle.files.content_version``).
        created_with: library name to version, for the record.
        input: what a query is.
        label_count: L.
        has_label_texts: whether labels have texts beside their ids.
        precision: of the encoder's weights.
        method: the method's section.
        files: every file but the manifest itself, by name.
        parity: measured at export; null only in a draft that has not been verified yet.
        golden: queries with known answers; empty only in a draft.
    """

    schema_version: Literal[1] = 1
    name: BundleName
    version: Version
    created_with: dict[str, str]
    input: Input
    label_count: Count
    has_label_texts: bool
    precision: Precision
    method: MethodSection
    files: dict[str, FileEntry]
    parity: Parity | None = None
    golden: tuple[GoldenAnswer, ...] = ()

    @model_validator(mode="after")
    def _golden_queries_fit_the_input(self) -> Self:
        wants_text = isinstance(self.input, TextInput)
        for position, answer in enumerate(self.golden):
            if isinstance(answer.query, str) != wants_text:
                raise ValueError(f"golden[{position}].query: expected {self.input.kind}, found the other kind")
        return self
