"""The strict model of ``manifest.json``: what a bundle says about itself.

One tagged union holds a section per method, told apart by ``name``. Unknown keys, numbers given as strings and infinite
values are refused: a manifest that an older or newer program wrote is never half understood.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from service.bundle.searching import OvaSection, UnidecSection
from service.bundle.shards import ShardEntry, first_gap, row_count
from service.bundle.strict import Count, Sha256, Share, Strict

SCHEMA_VERSION = 1

# Beyond it the order of any answer is that of the propensities alone.
GREATEST_PROPENSITY_WEIGHT = 10.0

Version = Annotated[str, Field(pattern=r"^[0-9a-f]{12}$")]
GroupName = Annotated[str, Field(min_length=1, max_length=128)]
BundleName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=128)]

Aggregation = Literal["sum_logits", "mean_prob", "unbiased", "min", "median"]
Activation = Literal["sigmoid", "softmax"]
Recovery = Literal["factors", "rows"]
Precision = Literal["fp32", "fp16", "int8"]
Order = Literal["bag", "sequence"]


class TextInput(Strict):
    """Queries are texts; tokens after the first ``max_tokens`` are cut off.

    ``order`` says what the encoder reads: a bag (distinct ids with counts), or a sequence (ids in reading order,
    between the tokenizer's special tokens). In a bag, a token of the first line of a text that has several counts
    ``1 + heading_weight``. Defaults are not written: bundles from before these fields keep their version.
    """

    kind: Literal["text"] = "text"
    max_tokens: Count
    order: Annotated[Order, Field(exclude_if=lambda order: order == "bag")] = "bag"
    heading_weight: Annotated[float, Field(ge=0.0, exclude_if=lambda weight: weight == 0)] = 0.0


class FeaturesInput(Strict):
    """Queries are sparse vectors with indices in ``0 .. dimension - 1``."""

    kind: Literal["features"] = "features"
    dimension: Count


class HashSection(Strict):
    """What put the labels into buckets, for the record: the table itself is in the bundle.

    ``murmur3_x86_32``: the hash of the key, with seed + r in repetition r. ``permutation``: a seeded random order of
    the labels for each repetition, cut into buckets of equal size. ``learned``: one of them, then moved in training.
    """

    family: Literal["murmur3_x86_32", "permutation", "learned"] = "murmur3_x86_32"
    key: Literal["label row, uint32 little-endian", "label row"] = "label row, uint32 little-endian"
    seed: Annotated[int, Field(ge=0)]


class MachSection(Strict):
    """MACH: R repetitions of B buckets, whose scores are gathered and aggregated for each label."""

    name: Literal["mach"] = "mach"
    repetitions: Count
    buckets: Annotated[int, Field(ge=2)]
    aggregation: Aggregation
    activation: Activation
    hash: HashSection


class DeclareSection(Strict):
    """DECLARE: nearest training rows in a space of ``rank`` dimensions vote with their labels.

    Fields that are null in bundles older than they are must stay optional.

    Attributes:
        name: tag.
        rank: width of the embedding.
        neighbours: training rows that vote.
        recovery: what similarities are computed from: label factors and votes, or an index of rows.
        merged: training rows with the same labels are stored once, with their number in a file; null: none are.
        alike: all votes of a row are one number, which is stored once; null: each vote is.
        divided: similarities from factors are divided by the numbers in a file, one for each row; null: they are not.
        temperature: a vote weighs exp(similarity / temperature), as a share of all; null: its similarity.
        texts: the texts of the rows are in a file, for explanations; null: they are not.
    """

    name: Literal["declare"] = "declare"
    rank: Count
    neighbours: Count
    recovery: Recovery
    merged: Literal[True] | None = None
    alike: Annotated[Literal[True] | None, Field(exclude_if=lambda alike: alike is None)] = None
    divided: Literal[True] | None = None
    temperature: Annotated[float, Field(gt=0.0)] | None = None
    texts: Annotated[Literal[True] | None, Field(exclude_if=lambda texts: texts is None)] = None

    @model_validator(mode="after")
    def _rows_are_divided_already(self) -> Self:
        if self.divided and self.recovery == "rows":
            raise ValueError("divided: expected null with recovery rows, whose index holds divided rows, found true")
        return self


Input = Annotated[TextInput | FeaturesInput, Field(discriminator="kind")]
MethodSection = Annotated[MachSection | DeclareSection | UnidecSection | OvaSection, Field(discriminator="name")]


class PlattMap(Strict):
    """Probability 1 / (1 + exp(-(slope * score + intercept)))."""

    kind: Literal["platt"] = "platt"
    slope: Annotated[float, Field(ge=0.0)]
    intercept: float


class IsotonicMap(Strict):
    """Straight lines through the knots (scores[i], probabilities[i]), level beyond the first and the last."""

    kind: Literal["isotonic"] = "isotonic"
    scores: Annotated[tuple[float, ...], Field(min_length=1, description="Strictly rising.")]
    probabilities: Annotated[tuple[Share, ...], Field(min_length=1, description="Never falling.")]

    @model_validator(mode="after")
    def _knots_rise(self) -> Self:
        if len(self.scores) != len(self.probabilities):
            raise ValueError(
                f"expected as many probabilities as scores, found {len(self.probabilities)} and {len(self.scores)}"
            )
        if not _strictly_rising(self.scores):
            raise ValueError("scores: expected strictly rising numbers, found others")
        if any(low > high for low, high in pairwise(self.probabilities)):
            raise ValueError("probabilities: expected numbers that never fall, found others")
        return self


class RankMap(Strict):
    """The map of the answers from ``first_rank``, counted from 1, to the rank before the next map's."""

    first_rank: Count
    map: Annotated[PlattMap | IsotonicMap, Field(discriminator="kind")]


class CalibrationSection(Strict):
    """Maps from raw scores to the probability that the label is relevant, as fitted to held-out rows in training.

    Each rank has its map, the last map also serves all ranks beyond; a rank's probability is held down to that of the
    rank before.
    """

    ranks: Annotated[tuple[RankMap, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _ranks_rise_from_1(self) -> Self:
        firsts = [rank.first_rank for rank in self.ranks]
        if firsts[0] != 1 or not _strictly_rising(firsts):
            raise ValueError(f"ranks: expected first ranks that rise from 1, found {firsts}")
        return self


class RerankSection(Strict):
    """Labels in the order of (1 - share) * own(score) + share * words(margin).

    The margin of a label is that of its linear classifier at the query's words or features, at unit length. The labels
    are the decoder's first ``candidates`` and, with the score of the last of these, up to ``nominees`` others with the
    largest margins above -1. Labels beyond follow, with (1 - share) * own(score), held down to the label before.

    With ``terms``, classifiers of texts read beside tokens the pieces of tokens that have some, and pairs of
    neighbours; without, tokens alone. With ``present``, features are weighted by IDF. False is not written.
    """

    candidates: Count
    nominees: Annotated[int, Field(ge=0)]
    share: Share
    own: PlattMap
    words: PlattMap
    terms: Annotated[bool, Field(exclude_if=lambda terms: not terms)] = False
    present: Annotated[bool, Field(exclude_if=lambda present: not present)] = False


class PropensitySection(Strict):
    """Re-ranking in favour of labels that annotators miss: by probability times inverse propensity to the ``weight``.

    The score of a label stays the probability that it is relevant, so scores do not fall from one answer to the next.
    The ``candidates`` labels with the best raw scores change places among themselves; labels beyond them follow.
    """

    weight: Annotated[float, Field(gt=0.0, le=GREATEST_PROPENSITY_WEIGHT)]
    candidates: Count


class ChangesSection(Strict):
    """Changes of labels that were made while an older bundle was served, and went into this one.

    Attributes:
        zero_shot: so many labels, the last, were added from their texts: no word classifier knows them.
        disabled: so many labels are not answered until they are enabled; their bitmap lies in a file.
    """

    zero_shot: Annotated[int, Field(ge=0)]
    disabled: Annotated[int, Field(ge=0)]

    @model_validator(mode="after")
    def _are_some(self) -> Self:
        if not self.zero_shot and not self.disabled:
            raise ValueError("expected labels that were added or disabled, found none")
        return self


class FileEntry(Strict):
    """One file; dtype (numpy's name, little-endian) and shape are given for arrays and null for the rest."""

    size: Annotated[int, Field(ge=0)]
    sha256: Sha256
    dtype: str | None = None
    shape: tuple[Annotated[int, Field(ge=0)], ...] | None = None


class Parity(Strict):
    """How far the bundle's answers are from the reference implementation's, over held-out queries."""

    queries: Count
    k: Count
    max_score_difference: Annotated[float, Field(ge=0.0)]
    equal_top_k: Share


class FeatureQuery(Strict):
    """A sparse query as it is stored in a manifest."""

    indices: tuple[int, ...]
    values: tuple[float, ...]


class ScoredLabel(Strict):
    """One label of an answer, by its public id."""

    id: str
    score: float


class GoldenAnswer(Strict):
    """A query and the answer, best first, that the bundle gave when it was exported."""

    query: str | FeatureQuery
    labels: Annotated[tuple[ScoredLabel, ...], Field(min_length=1)]


class Manifest(Strict):
    """The whole of ``manifest.json``.

    Attributes:
        schema_version: version of this format; the reader knows exactly one.
        name: name under which the service offers the model.
        version: digest of everything that decides an answer (see ``service.bundle.files.content_version``).
        created_with: library name to version, for the record.
        input: what a query is.
        label_count: L.
        has_label_texts: whether labels have texts beside their ids.
        hashed_ids: whether there is a table that finds labels by their ids; false is not written.
        groups: named groups of labels, and how many labels each has. Their bitmaps lie in a file in the order of their
            names' code points. None is not written.
        precision: of the encoder's weights.
        method: the method's section.
        rerank: word classifiers that have a say in raw scores; null for the method's own.
        calibration: makes probabilities of raw scores; null where these are served.
        propensity: another order of the answers; null for the order of scores.
        changes: of labels, while an older bundle was served; null for none.
        shards: bundles beside this one that hold the method's tables, in the order of their rows; none where this one
            holds them, and then not written.
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
    hashed_ids: Annotated[bool, Field(exclude_if=lambda hashed: not hashed)] = False
    groups: Annotated[dict[GroupName, Count], Field(default_factory=dict, exclude_if=lambda groups: not groups)]
    precision: Precision
    method: MethodSection
    rerank: RerankSection | None = None
    calibration: CalibrationSection | None = None
    propensity: PropensitySection | None = None
    changes: Annotated[ChangesSection | None, Field(exclude_if=lambda changes: changes is None)] = None
    shards: Annotated[tuple[ShardEntry, ...], Field(exclude_if=lambda shards: not shards)] = ()
    files: dict[str, FileEntry]
    parity: Parity | None = None
    golden: tuple[GoldenAnswer, ...] = ()

    @property
    def trained_count(self) -> int:
        """How many labels, the first, were trained."""
        return self.label_count - (0 if self.changes is None else self.changes.zero_shot)

    @model_validator(mode="after")
    def _shards_hold_all_rows(self) -> Self:
        if (place := first_gap(self.shards)) is not None:
            raise ValueError(f"shards[{place}].first: expected the end of the shard before, found another row")
        rows = row_count(self.shards)
        if self.shards and not isinstance(self.method, DeclareSection) and rows != self.label_count:
            raise ValueError(f"shards: expected all {self.label_count} labels, found {rows}")
        return self

    @model_validator(mode="after")
    def _golden_queries_fit_the_input(self) -> Self:
        wants_text = isinstance(self.input, TextInput)
        for position, answer in enumerate(self.golden):
            if isinstance(answer.query, str) != wants_text:
                raise ValueError(f"golden[{position}].query: expected {self.input.kind}, found the other kind")
        return self

    @model_validator(mode="after")
    def _classifiers_read_the_input(self) -> Self:
        kind, rerank = self.input.kind, self.rerank
        if rerank is not None and ((rerank.terms and kind != "text") or (rerank.present and kind != "features")):
            raise ValueError(f"rerank: expected terms with texts alone and present with features alone, found {kind}")
        return self

    @model_validator(mode="after")
    def _propensities_need_probabilities(self) -> Self:
        if self.propensity is not None and self.calibration is None:
            raise ValueError("propensity: expected a calibration beside it, found raw scores")
        return self

    @model_validator(mode="after")
    def _only_texts_become_labels(self) -> Self:
        reading = self.method.reading if isinstance(self.method, UnidecSection) else None
        if reading is not None and self.input.kind != "text":
            raise ValueError(f"method.reading: expected null with {self.input.kind}, found it")
        added = 0 if self.changes is None else self.changes.zero_shot
        if added and reading is None:
            raise ValueError(f"changes.zero_shot: expected 0 without method.reading, found {added}")
        if added >= self.label_count:
            raise ValueError(f"changes.zero_shot: expected less than all {self.label_count} labels, found {added}")
        return self


def _strictly_rising(numbers: Sequence[float]) -> bool:
    return all(low < high for low, high in pairwise(numbers))
