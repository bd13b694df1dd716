"""The files of a bundle, as one table: names, and for arrays the dtypes and shapes that the manifest implies.

A bundle holds exactly the files of ``expected_files``, the manifest and, if it is signed, the signature. Writers take
the names from here.
"""

from __future__ import annotations

from dataclasses import dataclass

from service.bundle.manifest import DeclareSection, MachSection, Manifest
from service.bundle.searching import OvaSection, SearchSection, UnidecSection

MANIFEST = "manifest.json"
SIGNATURE = "manifest.sig"

ENCODER = "encoder.onnx"
TOKENIZER = "tokenizer.json"

LABELS = "labels.jsonl"
LABEL_OFFSETS = "labels.offsets.npy"
LABEL_SLOTS = "labels.slots.npy"
LABEL_GROUPS = "labels.groups.npy"
LABELS_DISABLED = "labels.disabled.npy"

MACH_BUCKETS = "buckets.npy"
MACH_INVERTED_STEPS = "inverted.steps.npy"
MACH_INVERTED_PARTNERS = "inverted.partners.npy"
MACH_INVERTED_OFFSETS = "inverted.offsets.npy"

DECLARE_VOTES_INDPTR = "votes.indptr.npy"
DECLARE_VOTES_INDICES = "votes.indices.npy"
DECLARE_VOTES_DATA = "votes.data.npy"
DECLARE_VOTES_COUNTS = "votes.counts.npy"
DECLARE_LENGTHS = "votes.lengths.npy"
DECLARE_FACTORS = "factors.npy"
DECLARE_ROWS = "rows.vectors.npy"
DECLARE_ROW_SEARCH = "rows.search.onnx"
DECLARE_TEXTS = "votes.texts.jsonl"
DECLARE_TEXT_OFFSETS = "votes.texts.offsets.npy"

# An exact search is a graph beside the vectors that it reads, an approximate one an index of candidates and the codes
# that these are scored by.
LABEL_VECTORS = "labels.vectors.npy"
LABEL_SEARCH = "labels.search.onnx"
LABEL_LEADING = "labels.leading.npy"
LABEL_RESTS = "labels.rests.npy"
LABEL_INDEX = "labels.faiss"
LABEL_CODES = "labels.codes.npy"
LABEL_SCALES = "labels.scales.npy"
LABEL_DIRECTIONS = "labels.directions.npy"

RERANK_OFFSETS = "rerank.offsets.npy"
RERANK_LABELS = "rerank.labels.npy"
RERANK_VALUES = "rerank.values.npy"
RERANK_SCALES = "rerank.scales.npy"
RERANK_IDF = "rerank.idf.npy"
RERANK_PIECE_OFFSETS = "rerank.pieces.offsets.npy"
RERANK_PIECES = "rerank.pieces.npy"
RERANK_PAIRS = "rerank.pairs.npy"

INVERSE_PROPENSITIES = "inverse_propensities.npy"

# What offsets into other arrays, and rows of labels in them, may be: the narrower that fits.
OFFSETS = ("int32", "int64")
LABEL_ROWS = ("uint16", "uint32")


@dataclass(frozen=True)
class ArraySpec:
    """What an array file must hold.

    Attributes:
        dtypes: the numpy names that are accepted.
        shape: one entry a dimension; None where only the other files decide (checked with the contents).
    """

    dtypes: tuple[str, ...]
    shape: tuple[int | None, ...]


def expected_files(manifest: Manifest) -> dict[str, ArraySpec | None]:
    """Every file that a bundle with this manifest holds beside the manifest itself.

    Returns:
        File name to what its array must be, or None for a file that is not an array.
    """
    table = _common_files(manifest)
    if manifest.shards:  # which hold the rest
        return table
    match manifest.method:
        case MachSection() as mach:
            table |= _mach_files(mach, manifest.label_count)
        case DeclareSection() as declare:
            table |= _declare_files(declare, manifest.label_count)
        case UnidecSection() | OvaSection() as search:
            table |= _search_files(search, manifest.label_count)
    return table


def bucket_dtype(buckets: int) -> str:
    """The narrowest unsigned type that holds bucket numbers below ``buckets``."""
    if buckets <= 1 << 8:
        return "uint8"
    return "uint16" if buckets <= 1 << 16 else "uint32"


def offset_dtype(last: int) -> str:
    """The narrower of the two types that offsets up to ``last`` may have."""
    return OFFSETS[0] if last < 1 << 31 else OFFSETS[1]


def label_dtype(label_count: int) -> str:
    """The type of label rows in ``RERANK_LABELS`` and ``DECLARE_VOTES_INDICES``."""
    return LABEL_ROWS[0] if label_count <= 1 << 16 else LABEL_ROWS[1]


def slot_count(label_count: int) -> int:
    """Slots of the table that finds labels by their ids: a power of 2, and at least two a label."""
    return 1 << (2 * label_count - 1).bit_length()


def bitmap_bytes(label_count: int) -> int:
    """Bytes of a bitmap with a bit for each label."""
    return -(-label_count // 8)


def _offsets(*shape: int | None) -> ArraySpec:
    return ArraySpec(OFFSETS, shape)


def _common_files(manifest: Manifest) -> dict[str, ArraySpec | None]:
    table: dict[str, ArraySpec | None] = {
        ENCODER: None,
        LABELS: None,
        LABEL_OFFSETS: _offsets(manifest.label_count + 1),
    }
    if manifest.input.kind == "text":
        table[TOKENIZER] = None
    if manifest.hashed_ids:
        table[LABEL_SLOTS] = ArraySpec(("uint32",), (slot_count(manifest.label_count),))
    if manifest.groups:
        table[LABEL_GROUPS] = ArraySpec(("uint8",), (len(manifest.groups), bitmap_bytes(manifest.label_count)))
    if manifest.changes is not None and manifest.changes.disabled:
        table[LABELS_DISABLED] = ArraySpec(("uint8",), (bitmap_bytes(manifest.label_count),))
    if manifest.rerank is not None:
        table |= {
            RERANK_OFFSETS: _offsets(None),
            RERANK_LABELS: ArraySpec((label_dtype(manifest.label_count),), (None,)),
            RERANK_VALUES: ArraySpec(("float32", "float16", "int8"), (None,)),
            RERANK_SCALES: ArraySpec(("float32",), (None,)),
        }
        if manifest.input.kind == "text" or manifest.rerank.present:
            table[RERANK_IDF] = ArraySpec(("float32",), (None,))
        if manifest.rerank.terms:
            table |= {
                RERANK_PIECE_OFFSETS: _offsets(None),
                RERANK_PIECES: ArraySpec(("int32",), (None,)),
                RERANK_PAIRS: ArraySpec(("int64",), (None,)),
            }
    if isinstance(manifest.method, DeclareSection) and manifest.method.texts:
        table |= {DECLARE_TEXTS: None, DECLARE_TEXT_OFFSETS: _offsets(None)}
    if manifest.propensity is not None:
        table[INVERSE_PROPENSITIES] = ArraySpec(("float32",), (manifest.label_count,))
    return table


def _mach_files(mach: MachSection, label_count: int) -> dict[str, ArraySpec | None]:
    buckets = (bucket_dtype(mach.buckets),)
    return {
        MACH_BUCKETS: ArraySpec(buckets, (label_count, mach.repetitions)),
        MACH_INVERTED_STEPS: ArraySpec(buckets, (None,)),
        MACH_INVERTED_PARTNERS: ArraySpec(buckets, (None,)),
        MACH_INVERTED_OFFSETS: _offsets(mach.repetitions, mach.buckets + 1),
    }


def _declare_files(declare: DeclareSection, label_count: int) -> dict[str, ArraySpec | None]:
    table: dict[str, ArraySpec | None] = {
        DECLARE_VOTES_INDPTR: _offsets(None),
        DECLARE_VOTES_INDICES: ArraySpec((label_dtype(label_count),), (None,)),
        DECLARE_VOTES_DATA: ArraySpec(("float32",), (None,)),
    }
    if declare.recovery == "factors":
        table[DECLARE_FACTORS] = ArraySpec(("float32",), (label_count, declare.rank))
    else:
        table |= {DECLARE_ROWS: ArraySpec(("float32",), (None, declare.rank)), DECLARE_ROW_SEARCH: None}
    if declare.merged:
        table[DECLARE_VOTES_COUNTS] = ArraySpec(("int32",), (None,))
    if declare.divided:
        table[DECLARE_LENGTHS] = ArraySpec(("float32",), (None,))
    return table


def _search_files(search: SearchSection, label_count: int) -> dict[str, ArraySpec | None]:
    if search.index.type != "flat":
        return _index_files(search, label_count)
    table: dict[str, ArraySpec | None] = {
        LABEL_VECTORS: ArraySpec(("float32",), (label_count, search.dimension)),
        LABEL_SEARCH: None,
    }
    if search.index.leading is not None:
        table |= {
            LABEL_LEADING: ArraySpec(("float32",), (label_count, search.index.leading)),
            LABEL_RESTS: ArraySpec(("float32",), (label_count,)),
        }
    return table


def _index_files(search: SearchSection, label_count: int) -> dict[str, ArraySpec | None]:
    directions = search.index.directions
    assert directions is not None
    return {
        LABEL_INDEX: None,
        LABEL_CODES: ArraySpec(("int8", "int16"), (label_count, directions)),
        LABEL_SCALES: ArraySpec(("float32",), (label_count,)),
        LABEL_DIRECTIONS: ArraySpec(("float32",), (directions + 1, search.dimension)),
    }
