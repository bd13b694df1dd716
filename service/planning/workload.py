"""What is to be served: sizes that a user gives, and those that training would derive from them.

Training is no part of a server, so its rules stand here once more; a test holds them against `training`.

Letters: L labels, N training rows, D dimensions, R repetitions, B buckets.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from service.bundle.searching import IndexType
from service.errors import SettingsError
from service.planning.defaults import LABEL_BYTES, ROW_LABELS, ROWS_PER_LABEL, TOKENS, VOCABULARY

Method = Literal["mach", "declare", "unidec", "ova"]
EncoderKind = Literal["bag", "transformer"]
IndexChoice = Literal["auto", "flat", "ivf", "hnsw"]

# A label's row, plus 1, is a number of 32 bits in the table that finds it by its id.
MOST_LABELS = 2**32 - 2

# As training derives them.
FEW_REPETITIONS_FROM, MANY_REPETITIONS, FEW_REPETITIONS = 4096, 32, 16
MACH_WIDTHS_BELOW: tuple[tuple[int, tuple[int, ...]], ...] = ((32_768, (500, 500)), (524_288, (1024,)))
MACH_WIDTHS_ABOVE = (4096,)
SMALL_RANK_UPTO, SMALL_RANK, RANK = 1000, 100, 200
RERANKED_MACH_WIDTHS = (256,)
DECLARE_WIDTH, UNIDEC_WIDTH, OVA_WIDTH = 512, 512, 1024
# Both heads of UniDEC.
UNIDEC_DIMENSION = 2 * 128
# As export decides: exact search of so many numbers, 32 MB, is quick enough.
EXACT_NUMBERS = 1 << 23


@dataclass(frozen=True)
class Workload:
    """A model that is to be served; what its method does not have is 0.

    Attributes:
        method: as the manifest knows it.
        labels: L.
        dimension: D, of what labels are found by: vectors of UniDEC and one-vs-all, the rank of DECLARE, the last
            hidden layer of MACH.
        widths: units of the bag encoder's layers; none above a transformer.
        repetitions: R of MACH.
        buckets: B of MACH.
        rows: distinct training rows of DECLARE.
        row_labels: labels of each, on average.
        index: by which UniDEC and one-vs-all find labels; None: of other methods.
        leading: coordinates by which an exact search passes over most labels; 0: products are whole.
        encoder: what reads queries.
        vocabulary: tokens that the bag encoder knows, or features.
        encoder_bytes: of ``encoder.onnx``; None: by its sizes, in float32.
        label_bytes: of a label's id and text, on average.
        rerank_weights: of a label's word classifier, on average; 0: answers are not re-ranked.
        tokens: of a query.
    """

    method: Method
    labels: int
    dimension: int
    widths: tuple[int, ...]
    repetitions: int
    buckets: int
    rows: int
    row_labels: float
    index: IndexType | None
    leading: int
    encoder: EncoderKind
    vocabulary: int
    encoder_bytes: int | None
    label_bytes: float
    rerank_weights: float
    tokens: int

    @property
    def votes(self) -> int:
        """P, labels of all rows of DECLARE."""
        return round(self.rows * self.row_labels)

    @property
    def by_factors(self) -> bool:
        """Whether DECLARE keeps the factors of labels; else the vectors of its rows are fewer."""
        return self.labels <= self.rows

    @property
    def outputs(self) -> int:
        """Numbers that the encoder gives for a query."""
        return self.repetitions * self.buckets if self.method == "mach" else self.dimension


@dataclass(frozen=True)
class Wishes:
    """The sizes that a user gives; None where training or export shall decide. See `Workload`."""

    method: Method
    labels: int
    dimension: int | None = None
    repetitions: int | None = None
    buckets: int | None = None
    rows: int | None = None
    row_labels: float | None = None
    index: IndexChoice | None = None
    leading: int | None = None
    encoder: EncoderKind = "bag"
    vocabulary: int | None = None
    encoder_bytes: int | None = None
    label_bytes: float = LABEL_BYTES
    rerank_weights: float = 0.0
    tokens: int = TOKENS


# Which options belong to which methods.
OWN: dict[str, tuple[Method, ...]] = {
    "repetitions": ("mach",),
    "buckets": ("mach",),
    "rows": ("declare",),
    "row_labels": ("declare",),
    "index": ("unidec", "ova"),
    "leading": ("unidec", "ova"),
}


def resolved(wishes: Wishes) -> Workload:
    """The workload with nothing left to derive.

    Raises:
        SettingsError: a size belongs to another method or cannot be.
    """
    _check(wishes)
    method, labels = wishes.method, wishes.labels
    dimension = wishes.dimension or _dimension(wishes)
    index = _index(wishes, dimension)
    leading = wishes.leading or 0
    if leading and (index != "flat" or leading >= dimension):
        raise SettingsError(
            f"--leading: expected fewer coordinates than the {dimension} of a vector, of an exact search (--index "
            f"flat), found {leading} with {index}"
        )
    if wishes.vocabulary is not None and wishes.encoder == "transformer":
        raise SettingsError("--vocabulary is that of a bag encoder: expected none with --encoder transformer")
    is_mach, is_declare = method == "mach", method == "declare"
    return Workload(
        method=method,
        labels=labels,
        dimension=dimension,
        widths=_widths(wishes, dimension) if wishes.encoder == "bag" else (),
        repetitions=(wishes.repetitions or repetitions_of(labels)) if is_mach else 0,
        buckets=(wishes.buckets or buckets_of(labels)) if is_mach else 0,
        rows=(wishes.rows or ROWS_PER_LABEL * labels) if is_declare else 0,
        row_labels=(wishes.row_labels or ROW_LABELS) if is_declare else 0.0,
        index=index,
        leading=leading,
        encoder=wishes.encoder,
        vocabulary=(wishes.vocabulary or VOCABULARY) if wishes.encoder == "bag" else 0,
        encoder_bytes=wishes.encoder_bytes,
        label_bytes=wishes.label_bytes,
        rerank_weights=wishes.rerank_weights,
        tokens=wishes.tokens,
    )


def repetitions_of(labels: int) -> int:
    """R as training derives it."""
    return MANY_REPETITIONS if labels <= FEW_REPETITIONS_FROM else FEW_REPETITIONS


def buckets_of(labels: int) -> int:
    """B as training derives it."""
    return int(2 ** max(4, round(math.log2(6 * math.sqrt(labels)))))


def _check(wishes: Wishes) -> None:
    if wishes.labels > MOST_LABELS:
        raise SettingsError(f"--labels: expected at most {MOST_LABELS:,}, found {wishes.labels:,}")
    for name, methods in OWN.items():
        if getattr(wishes, name) is not None and wishes.method not in methods:
            option = name.replace("_", "-")
            raise SettingsError(f"--{option} belongs to {' and '.join(methods)}: expected none with {wishes.method}")
    if wishes.method == "unidec" and (wishes.dimension or 0) % 2:
        raise SettingsError(f"--dim: expected an even number, half of it for each head, found {wishes.dimension}")
    if wishes.method == "ova" and wishes.dimension == 1:
        raise SettingsError("--dim: expected at least 2, the last of which is a bias, found 1")
    if wishes.buckets == 1:
        raise SettingsError("--buckets: expected at least 2, found 1")


def _dimension(wishes: Wishes) -> int:
    labels = wishes.labels
    match wishes.method:
        case "mach":
            return _mach_widths(wishes)[-1]
        case "declare":
            wanted = SMALL_RANK if labels <= SMALL_RANK_UPTO else RANK
            return min(wanted, labels, wishes.rows or wanted)
        case "unidec":
            return UNIDEC_DIMENSION
        case "ova":
            return OVA_WIDTH + 1


def _widths(wishes: Wishes, dimension: int) -> tuple[int, ...]:
    match wishes.method:
        case "mach":
            return _mach_widths(wishes)
        case "declare":
            return (DECLARE_WIDTH,)
        case "unidec":
            return (UNIDEC_WIDTH,)
        case "ova":
            return (dimension - 1,)


def _mach_widths(wishes: Wishes) -> tuple[int, ...]:
    if wishes.dimension is not None:
        return (wishes.dimension,)
    if wishes.rerank_weights:
        return RERANKED_MACH_WIDTHS
    return next((widths for limit, widths in MACH_WIDTHS_BELOW if wishes.labels <= limit), MACH_WIDTHS_ABOVE)


def _index(wishes: Wishes, dimension: int) -> IndexType | None:
    if wishes.method not in OWN["index"]:
        return None
    if wishes.index is None or wishes.index == "auto":
        return "flat" if wishes.labels * dimension <= EXACT_NUMBERS or wishes.leading else "ivf"
    return wishes.index
