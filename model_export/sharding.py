"""Cutting a bundle into shards: bundles that hold parts of its method's tables, and one that holds the rest.

The rest is the head: encoder, labels, groups, calibration, classifiers. It reads queries and serves what shards find.
Parts are runs of rows, so that ties keep their order, and cost about the same. Rows are labels, or DECLARE's training
rows.

Letters: L labels, R repetitions, D dimensions, C leading coordinates, G training rows.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from model_export.errors import UsageError
from model_export.exact_search import AXES, write_exact_search, write_leading_search
from model_export.exporters.mach import write_inverted_lists
from model_export.replacement import replacing
from model_export.verify import golden_answers
from service.bundle import Bundle, Manifest, file_entry, layout, load_bundle, open_bundle
from service.bundle.files import sha256_of, version_of, write_manifest
from service.bundle.labels import write_records
from service.bundle.manifest import DeclareSection, MachSection
from service.bundle.searching import SearchSection
from service.bundle.shards import HEAD, ShardEntry
from service.engine import Engine
from service.golden import query_of

# A row of DECLARE costs as much as so many of its votes, whatever it votes for: a similarity that is looked at.
ROW_COST = 1.0


class _Rows(NamedTuple):
    """Rows from low to (not including) high."""

    low: int
    high: int


def shard(path: Path, count: int, out: Path) -> Manifest:
    """Cut a bundle into a folder of a head and its shards, in place of one that is there.

    Args:
        path: a finished bundle.
        count: of shards.
        out: folder that will hold ``head`` and ``shard-0``, ``shard-1``, ...

    Returns:
        The manifest of the head.

    Raises:
        UsageError: the bundle cannot be cut so, or ``out`` holds something else.
        BundleError: it is damaged, or what was written does not answer as it does.
    """
    bundle = open_bundle(path)
    costs = row_costs(bundle)
    _check(bundle, count, len(costs))
    with replacing(out, HEAD) as folder:
        entries = [
            _write_shard(bundle, folder / f"shard-{place}", rows) for place, rows in enumerate(balanced(costs, count))
        ]
        return _write_head(bundle, folder / HEAD, entries)


def row_costs(bundle: Bundle) -> NDArray[np.float64]:
    """What each row adds to the time of a query: labels all the same, training rows a step for each of their votes."""
    if not isinstance(bundle.manifest.method, DeclareSection):
        return np.ones(bundle.manifest.label_count)
    return np.diff(bundle.arrays[layout.DECLARE_VOTES_INDPTR]) + ROW_COST


def balanced(costs: NDArray[np.float64], count: int) -> list[_Rows]:
    """Runs of rows that cost about the same, at least one row each.

    Args:
        costs: of each row, above 0.
        count: of runs, at most as many as rows.
    """
    totals = np.cumsum(costs)
    ends = np.searchsorted(totals, totals[-1] * np.arange(1, count) / count) + 1
    # Where single rows cost more than a run, others would be left without any.
    least, most = np.arange(1, count), len(costs) - np.arange(count - 1, 0, -1)
    ends = np.clip(np.maximum.accumulate(ends - least) + least, least, most)
    return [_Rows(low, high) for low, high in pairwise([0, *ends.tolist(), len(costs)])]


def _check(bundle: Bundle, count: int, rows: int) -> None:
    manifest = bundle.manifest
    if manifest.shards:
        raise UsageError(f"{bundle.path}: expected a whole bundle, found the head of {len(manifest.shards)} shards")
    if not 2 <= count <= rows:
        raise UsageError(f"--shards: expected 2 to {rows:,}, the rows of {bundle.path}, found {count}")
    if isinstance(manifest.method, SearchSection) and manifest.method.index.type != "flat":
        raise UsageError(
            f"{bundle.path}: expected an exact search, which can be merged to the same answers, found the index "
            f"{manifest.method.index.type}: export it with --index flat"
        )


def _write_shard(bundle: Bundle, folder: Path, rows: _Rows) -> ShardEntry:
    folder.mkdir()
    manifest, method = bundle.manifest, bundle.manifest.method
    for name in (layout.ENCODER, layout.TOKENIZER):
        _take(bundle, name, folder)
    labels = rows
    match method:
        case MachSection():
            _write_buckets(bundle, method, folder, rows)
        case DeclareSection():
            labels = _Rows(0, manifest.label_count)
            method = method.model_copy(update={"texts": None})
            _write_votes(bundle, method, folder, rows)
        case _:
            _write_vectors(bundle, folder, rows)
    _write_labels(bundle, folder, labels)
    draft = _manifest(
        bundle,
        folder,
        name=f"{manifest.name}-{folder.name}"[-128:].lstrip("._-"),
        label_count=labels.high - labels.low,
        hashed_ids=True,
        groups={},
        method=method,
        rerank=None,
        calibration=None,
        propensity=None,
        changes=None,
    )
    engine = Engine.open(load_bundle(folder, draft), device="cpu")
    golden = golden_answers(engine, map(query_of, manifest.golden))
    write_manifest(folder, draft.model_copy(update={"golden": golden}))
    return ShardEntry(
        folder=folder.name, sha256=sha256_of(folder / layout.MANIFEST), first=rows.low, count=rows.high - rows.low
    )


def _write_head(bundle: Bundle, folder: Path, entries: Sequence[ShardEntry]) -> Manifest:
    """What the shards do not have; its golden answers are those of the whole bundle, and it must give them."""
    folder.mkdir()
    shards = tuple(entries)
    for name in layout.expected_files(bundle.manifest.model_copy(update={"shards": shards})):
        _take(bundle, name, folder)
    manifest = _manifest(bundle, folder, shards=shards)
    Engine.open(load_bundle(folder, manifest), device="cpu").check_golden()
    write_manifest(folder, manifest)
    return manifest


def _manifest(bundle: Bundle, folder: Path, **sections: Any) -> Manifest:
    """The bundle's, with other sections, of the files in a folder."""
    files = {file.name: file_entry(file) for file in sorted(folder.iterdir())}
    libraries = bundle.manifest.created_with | {"xmcserve": version("xmcserve")}
    made = bundle.manifest.model_copy(update=sections | {"files": files, "created_with": libraries})
    return made.model_copy(update={"version": version_of(made)})


def _write_buckets(bundle: Bundle, section: MachSection, folder: Path, rows: _Rows) -> None:
    buckets_LR = np.ascontiguousarray(bundle.arrays[layout.MACH_BUCKETS][rows.low : rows.high])
    np.save(folder / layout.MACH_BUCKETS, buckets_LR)
    write_inverted_lists(folder, buckets_LR, section.buckets)


def _write_vectors(bundle: Bundle, folder: Path, rows: _Rows) -> None:
    arrays, graph = bundle.arrays, folder / layout.LABEL_SEARCH
    vectors_LD = arrays[layout.LABEL_VECTORS][rows.low : rows.high]
    if layout.LABEL_LEADING not in arrays:
        write_exact_search(vectors_LD, folder / layout.LABEL_VECTORS, graph)
        return
    np.save(folder / layout.LABEL_VECTORS, vectors_LD)
    np.save(folder / layout.LABEL_RESTS, arrays[layout.LABEL_RESTS][rows.low : rows.high])
    leading_LC = arrays[layout.LABEL_LEADING][rows.low : rows.high]
    write_leading_search(leading_LC, _axes(bundle.file(layout.LABEL_SEARCH)), folder / layout.LABEL_LEADING, graph)


def _axes(graph: Path) -> NDArray[np.float32]:
    """Axes of leading coordinates, which the graph alone knows, (D, C)."""
    constants = onnx.load(graph, load_external_data=False).graph.initializer
    axes_DC: NDArray[np.float32] = numpy_helper.to_array(next(one for one in constants if one.name == AXES))
    return axes_DC


def _write_votes(bundle: Bundle, section: DeclareSection, folder: Path, rows: _Rows) -> None:
    """Training rows; of all labels, since any row may vote for any."""
    arrays, of_rows = bundle.arrays, slice(rows.low, rows.high)
    starts_G = arrays[layout.DECLARE_VOTES_INDPTR][rows.low : rows.high + 1].astype(np.int64)
    of_votes = slice(starts_G[0], starts_G[-1])
    starts_G -= starts_G[0]
    np.save(folder / layout.DECLARE_VOTES_INDPTR, starts_G.astype(layout.offset_dtype(int(starts_G[-1]))))
    np.save(folder / layout.DECLARE_VOTES_INDICES, arrays[layout.DECLARE_VOTES_INDICES][of_votes])
    values = arrays[layout.DECLARE_VOTES_DATA]
    np.save(folder / layout.DECLARE_VOTES_DATA, values[of_rows if section.alike else of_votes])
    for name in (layout.DECLARE_VOTES_COUNTS, layout.DECLARE_LENGTHS):
        if name in arrays:
            np.save(folder / name, arrays[name][of_rows])
    if section.recovery == "factors":
        _take(bundle, layout.DECLARE_FACTORS, folder)
    else:
        vectors_GC = arrays[layout.DECLARE_ROWS][of_rows]
        write_exact_search(vectors_GC, folder / layout.DECLARE_ROWS, folder / layout.DECLARE_ROW_SEARCH)


def _write_labels(bundle: Bundle, folder: Path, rows: _Rows) -> None:
    """Records of a run of labels as they stand in the file."""
    offsets = bundle.arrays[layout.LABEL_OFFSETS][rows.low : rows.high + 1].astype(np.int64)
    with bundle.file(layout.LABELS).open("rb") as file:
        file.seek(int(offsets[0]))
        lines = file.read(int(offsets[-1] - offsets[0]))
    write_records(folder, lines, offsets - offsets[0])


def _take(bundle: Bundle, name: str, folder: Path) -> None:
    """The same file once more, where the bundle has it; on one file system it takes no more room."""
    source = bundle.file(name)
    if name not in bundle.manifest.files:
        return
    try:
        os.link(source, folder / name)
    except OSError:
        shutil.copyfile(source, folder / name)
