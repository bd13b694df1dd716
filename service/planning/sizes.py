"""Bytes on disk, file by file: those of `bundle.layout`, whose shapes and types decide them.

Letters: L labels, R repetitions, B buckets, N entries of MACH's lists or training rows, P votes or weights of
classifiers, D dimensions, V words.
"""

from __future__ import annotations

import io
import math
from typing import Any, NamedTuple

import numpy as np
from numpy.lib import format as npy_format

from service.bundle import layout
from service.bundle.labels import ID_KEY, LINE_END
from service.bundle.layout import ArraySpec
from service.bundle.manifest import (
    DeclareSection,
    HashSection,
    MachSection,
    Manifest,
    MethodSection,
    PlattMap,
    RerankSection,
    TextInput,
)
from service.bundle.searching import IndexSection, OvaSection, UnidecSection
from service.planning import index_file
from service.planning.constants import Files
from service.planning.encoders import FLOAT_BYTES, MINILM, encoder_bytes
from service.planning.workload import Workload

# What a record holds beside the id and the text of its label: `{"id":"a","text":"b"}`.
RECORD_BYTES = len(ID_KEY) + len(b'"","text":""') + len(LINE_END)
# Of the words that classifiers read beside tokens: pairs of neighbours, and pieces of tokens that are whole words.
PAIRS, PIECES_PER_TOKEN = 100_000, 1.9
# Nodes of a graph that holds no weights.
GRAPH_BYTES = 215

GROUPS = {
    "encoder": (layout.ENCODER, layout.TOKENIZER),
    "labels": (layout.LABELS, layout.LABEL_OFFSETS, layout.LABEL_SLOTS),
    "re-ranker": (
        *(layout.RERANK_OFFSETS, layout.RERANK_LABELS, layout.RERANK_VALUES, layout.RERANK_SCALES, layout.RERANK_IDF),
        *(layout.RERANK_PIECE_OFFSETS, layout.RERANK_PIECES, layout.RERANK_PAIRS),
    ),
}
METHOD_GROUP = "method"


class _Open(NamedTuple):
    """What the layout leaves open of an array: its shape where that is None, and the largest number that it holds."""

    shape: tuple[int, ...]
    last: int = 0


def file_bytes(workload: Workload, files: Files) -> dict[str, int]:
    """Size of every file of the bundle but the manifest, by name."""
    opened, plain = _opened(workload), _plain(workload, files)
    sizes = {}
    for name, spec in layout.expected_files(manifest_of(workload)).items():
        sizes[name] = plain[name] if spec is None else _array_bytes(spec, opened.get(name))
    return sizes


def by_group(sizes: dict[str, int]) -> dict[str, int]:
    """The same by what files are for."""
    groups = dict.fromkeys(("encoder", "labels", METHOD_GROUP, "re-ranker"), 0)
    group_of = {name: group for group, names in GROUPS.items() for name in names}
    for name, size in sizes.items():
        groups[group_of.get(name, METHOD_GROUP)] += size
    return {group: size for group, size in groups.items() if size}


def inverted_entries(workload: Workload) -> int:
    """N of all repetitions: labels, and steps that are too long for one number, as many as are to be expected.

    A label needs another entry for every so many labels before it of which none is in its bucket.
    """
    L, B = workload.labels, workload.buckets
    far = int(np.iinfo(layout.bucket_dtype(B)).max)
    more = 0.0
    for times in range(1, L // far + 1):
        entries = (L - times * far) * (1 - 1 / B) ** (times * far)
        more += entries
        if entries < 1:
            break
    return workload.repetitions * round(L + more)


def manifest_of(workload: Workload) -> Manifest:
    """The draft of a manifest that says what the bundle will hold."""
    curve = PlattMap(slope=1.0, intercept=0.0)
    rerank = RerankSection(candidates=100, nominees=50, share=0.5, own=curve, words=curve, terms=True)
    return Manifest(
        name="plan",
        version="0" * 12,
        created_with={},
        input=TextInput(max_tokens=256),
        label_count=workload.labels,
        has_label_texts=True,
        hashed_ids=True,
        groups={},
        precision="fp32",
        method=_section(workload),
        rerank=rerank if workload.rerank_weights else None,
        files={},
    )


def _section(workload: Workload) -> MethodSection:
    match workload.method:
        case "mach":
            return MachSection(
                repetitions=workload.repetitions,
                buckets=workload.buckets,
                aggregation="sum_logits",
                activation="sigmoid",
                hash=HashSection(seed=0),
            )
        case "declare":
            recovery: Any = "factors" if workload.by_factors else "rows"
            divided = True if workload.by_factors else None
            kept: dict[str, Any] = {"recovery": recovery, "merged": True, "alike": True, "divided": divided}
            return DeclareSection(rank=workload.dimension, neighbours=100, **kept)
        case "unidec":
            return UnidecSection(dimension=workload.dimension, heads="both", index=_index(workload))
        case "ova":
            return OvaSection(dimension=workload.dimension, index=_index(workload))


def _index(workload: Workload) -> IndexSection:
    assert workload.index is not None
    if workload.index == "flat":
        return IndexSection(type="flat", recall=1.0, leading=workload.leading or None)
    span = 0.0 if workload.index == "ivf" else None
    return IndexSection(type=workload.index, recall=1.0, candidates=1, directions=index_file.codes(workload), span=span)


def _array_bytes(spec: ArraySpec, opened: _Open | None) -> int:
    shape = tuple(size for size in spec.shape if size is not None)
    if opened is not None and len(shape) < len(spec.shape):
        shape = opened.shape
    dtype = spec.dtypes[0]
    if spec.dtypes == layout.OFFSETS:
        assert opened is not None
        dtype = layout.offset_dtype(opened.last)
    header = {"descr": npy_format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    written = io.BytesIO()
    npy_format.write_array_header_1_0(written, header)
    return written.tell() + math.prod(shape) * np.dtype(dtype).itemsize


def _opened(workload: Workload) -> dict[str, _Open]:
    records = round(workload.labels * (RECORD_BYTES + workload.label_bytes))
    opened = {layout.LABEL_OFFSETS: _Open((), records)}
    match workload.method:
        case "mach":
            entries = inverted_entries(workload)
            lists = dict.fromkeys((layout.MACH_INVERTED_STEPS, layout.MACH_INVERTED_PARTNERS), _Open((entries,)))
            opened |= lists | {layout.MACH_INVERTED_OFFSETS: _Open((), entries)}
        case "declare":
            votes, rows = workload.votes, workload.rows
            opened |= {
                layout.DECLARE_VOTES_INDPTR: _Open((rows + 1,), votes),
                layout.DECLARE_VOTES_INDICES: _Open((votes,)),
                layout.DECLARE_VOTES_DATA: _Open((rows,)),
                layout.DECLARE_VOTES_COUNTS: _Open((rows,)),
                layout.DECLARE_LENGTHS: _Open((rows,)),
                layout.DECLARE_ROWS: _Open((rows, workload.dimension)),
            }
    return opened | _classifiers(workload)


def _classifiers(workload: Workload) -> dict[str, _Open]:
    tokens = workload.vocabulary or MINILM.vocabulary
    pieces, words = round(PIECES_PER_TOKEN * tokens), tokens + PAIRS
    weights = rerank_weights(workload)
    of_weights = dict.fromkeys((layout.RERANK_LABELS, layout.RERANK_VALUES), _Open((weights,)))
    of_words = dict.fromkeys((layout.RERANK_SCALES, layout.RERANK_IDF), _Open((words,)))
    return (of_weights | of_words) | {
        layout.RERANK_OFFSETS: _Open((words + 1,), weights),
        layout.RERANK_PIECE_OFFSETS: _Open((tokens + 1,), pieces),
        layout.RERANK_PIECES: _Open((pieces,)),
        layout.RERANK_PAIRS: _Open((PAIRS,)),
    }


def rerank_weights(workload: Workload) -> int:
    """P of all word classifiers."""
    return round(workload.labels * workload.rerank_weights)


def _plain(workload: Workload, files: Files) -> dict[str, int]:
    """Sizes of files that are no arrays; more than a bundle has."""
    axes = FLOAT_BYTES * workload.dimension * workload.leading
    return {
        layout.ENCODER: encoder_bytes(workload),
        layout.TOKENIZER: round(files.token_bytes * (workload.vocabulary or MINILM.vocabulary)),
        layout.LABELS: round(workload.labels * (RECORD_BYTES + workload.label_bytes)),
        layout.DECLARE_ROW_SEARCH: GRAPH_BYTES,
        layout.LABEL_SEARCH: GRAPH_BYTES + axes,
        layout.LABEL_INDEX: index_file.index_bytes(workload, files.projection_share),
    }
