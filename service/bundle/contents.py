"""Checks of what arrays hold: tables, lists and votes that contradict themselves or each other are refused.

Checksums say that a file is the one that was written; these checks say that it was worth writing. Each raises one
``BundleError`` sentence: file, expected, found.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.bundle import layout
from service.bundle.inverted import columns_of_pair, pairs
from service.bundle.manifest import DeclareSection, MachSection, Manifest
from service.bundle.searching import OvaSection, UnidecSection
from service.errors import BundleError
from service.processors import at_once

Arrays = Mapping[str, NDArray[Any]]

# Of the length of a float32 vector, as a share of it.
LENGTH_ROUNDING = 1e-4


def check_contents(manifest: Manifest, arrays: Arrays) -> None:
    """Check the arrays of the bundle's method and scores against each other.

    Args:
        manifest: its method section and label count bound the values.
        arrays: all arrays by file name, with the dtypes and shapes of ``layout.expected_files``.

    Raises:
        BundleError: an array holds values that cannot be right.
    """
    if manifest.propensity is not None:
        inverse_L = arrays[layout.INVERSE_PROPENSITIES]
        holds = bool((np.isfinite(inverse_L) & (inverse_L > 0)).all())
        require(holds, layout.INVERSE_PROPENSITIES, "finite numbers above 0", "others")
    if manifest.rerank is not None:
        _check_classifiers(manifest, arrays)
    if manifest.groups:
        _check_groups(manifest, arrays[layout.LABEL_GROUPS])
    if manifest.changes is not None and manifest.changes.disabled:
        _check_disabled(manifest.changes.disabled, manifest.label_count, arrays[layout.LABELS_DISABLED])
    if not manifest.shards:
        _check_method(manifest, arrays)


def _check_method(manifest: Manifest, arrays: Arrays) -> None:
    match manifest.method:
        case MachSection(buckets=buckets):
            _check_buckets(arrays[layout.MACH_BUCKETS], buckets)
            _check_inverted_lists(arrays)
        case DeclareSection() as declare:
            _check_votes(arrays, manifest.label_count, bool(declare.alike))
            if declare.merged:
                _check_per_row(arrays, layout.DECLARE_VOTES_COUNTS)
            if declare.divided:
                _check_per_row(arrays, layout.DECLARE_LENGTHS)
            if declare.recovery == "factors":
                _check_finite(arrays, layout.DECLARE_FACTORS)
            else:
                _check_rows(arrays)
        case UnidecSection(index=index) | OvaSection(index=index):
            if index.type == "flat":
                _check_finite(arrays, layout.LABEL_VECTORS)
            else:
                _check_codes(arrays)
            if index.leading is not None:
                _check_leading(arrays)


def _check_groups(manifest: Manifest, groups_GW: NDArray[np.uint8]) -> None:
    for (group, size), bits_W in zip(sorted(manifest.groups.items()), groups_GW, strict=True):
        _check_bitmap(layout.LABEL_GROUPS, bits_W, manifest.label_count, size, f"labels in group {group!r}")


def _check_disabled(size: int, label_count: int, bits_W: NDArray[np.uint8]) -> None:
    _check_bitmap(layout.LABELS_DISABLED, bits_W, label_count, size, "disabled labels")


def _check_bitmap(name: str, bits_W: NDArray[np.uint8], label_count: int, size: int, which: str) -> None:
    require(not bits_W[-1] >> (8 - -label_count % 8), name, f"no bits beyond {label_count} labels", "some")
    found = int(np.bitwise_count(bits_W).sum(dtype=np.int64))
    require(found == size, name, f"{size} {which} as the manifest says", f"{found}")


def _check_buckets(buckets_LR: NDArray[Any], buckets: int) -> None:
    largest = int(buckets_LR.max())
    require(largest < buckets, layout.MACH_BUCKETS, f"bucket numbers below {buckets}", f"{largest}")


def _check_inverted_lists(arrays: Arrays) -> None:
    from service.bundle.walk import first_fault  # compiled: who never opens a bundle need not load the compiler

    buckets_LR, offsets_RB = arrays[layout.MACH_BUCKETS], arrays[layout.MACH_INVERTED_OFFSETS]
    steps_N, partners_N = arrays[layout.MACH_INVERTED_STEPS], arrays[layout.MACH_INVERTED_PARTNERS]
    starts_R, ends_R = offsets_RB[:, 0], offsets_RB[:, -1]
    joined = starts_R[0] == 0 and np.array_equal(starts_R[1:], ends_R[:-1])
    name = layout.MACH_INVERTED_OFFSETS
    require(joined and bool((np.diff(offsets_RB) >= 0).all()), name, "offsets from 0 that never fall", "others")
    for other, array in ((layout.MACH_INVERTED_STEPS, steps_N), (layout.MACH_INVERTED_PARTNERS, partners_N)):
        require(array.size == ends_R[-1], other, f"{ends_R[-1]} entries as {name} says", f"{array.size}")

    def fault_of_pair(repetitions: range) -> str | None:
        for repetition, own_L, partners_L in columns_of_pair(buckets_LR, repetitions):
            if file := first_fault(steps_N, partners_N, offsets_RB[repetition], own_L, partners_L):
                return f"{file}: expected the lists of {layout.MACH_BUCKETS}, found others in repetition {repetition}"
        return None

    if fault := next(filter(None, at_once(fault_of_pair, pairs(buckets_LR.shape[1]))), None):
        raise BundleError(fault)


def _check_leading(arrays: Arrays) -> None:
    """Leading coordinates and the rest must make up the length of a vector: too short a rest would hide labels."""
    vectors_LD, rests_L = arrays[layout.LABEL_VECTORS], arrays[layout.LABEL_RESTS]
    _check_finite(arrays, layout.LABEL_LEADING)
    lengths_L = np.sqrt(_squares(arrays[layout.LABEL_LEADING]) + np.square(rests_L))
    whole_L = np.sqrt(_squares(vectors_LD))
    agree = bool((rests_L >= 0).all()) and np.allclose(lengths_L, whole_L, rtol=LENGTH_ROUNDING, atol=0)
    require(agree, layout.LABEL_RESTS, f"the lengths that {layout.LABEL_LEADING} leaves", "others")


def _check_codes(arrays: Arrays) -> None:
    scales_L = arrays[layout.LABEL_SCALES]
    positive = bool((np.isfinite(scales_L) & (scales_L > 0)).all())
    require(positive, layout.LABEL_SCALES, "finite numbers above 0", "others")
    _check_finite(arrays, layout.LABEL_DIRECTIONS)


def _squares(vectors: NDArray[Any]) -> NDArray[Any]:
    squares: NDArray[Any] = np.einsum("ld,ld->l", vectors, vectors)
    return squares


def _check_votes(arrays: Arrays, label_count: int, alike: bool) -> None:
    indptr = arrays[layout.DECLARE_VOTES_INDPTR]
    indices = arrays[layout.DECLARE_VOTES_INDICES]
    data = arrays[layout.DECLARE_VOTES_DATA]
    name = layout.DECLARE_VOTES_INDPTR
    require(indptr.size >= 2, name, "at least one training row", f"{indptr.size} offsets")
    require(indptr[0] == 0, name, "a first offset of 0", f"{indptr[0]}")
    require(bool((np.diff(indptr) >= 0).all()), name, "offsets that never fall", "falling ones")
    sizes = {
        layout.DECLARE_VOTES_INDICES: indptr[-1],
        layout.DECLARE_VOTES_DATA: indptr.size - 1 if alike else indptr[-1],
    }
    for other, size in sizes.items():
        require(arrays[other].size == size, other, f"{size} entries as {name} says", f"{arrays[other].size}")
    name = layout.DECLARE_VOTES_INDICES
    in_range = not indices.size or int(indices.max()) < label_count
    require(in_range, name, f"label rows in 0..{label_count - 1}", "one outside")
    require(_ascends_in_rows(indptr, indices), name, "ascending, distinct labels in each row", "others")
    positive = bool((np.isfinite(data) & (data > 0)).all())
    require(positive, layout.DECLARE_VOTES_DATA, "finite votes above 0", "others")


def _check_classifiers(manifest: Manifest, arrays: Arrays) -> None:
    offsets, labels = arrays[layout.RERANK_OFFSETS], arrays[layout.RERANK_LABELS]
    values, scales = arrays[layout.RERANK_VALUES], arrays[layout.RERANK_SCALES]
    name = layout.RERANK_OFFSETS
    require(offsets.size >= 2 and offsets[0] == 0, name, "a first offset of 0, and others", "something else")
    require(bool((np.diff(offsets) >= 0).all()), name, "offsets that never fall", "falling ones")
    for other, array in ((layout.RERANK_LABELS, labels), (layout.RERANK_VALUES, values)):
        require(array.size == offsets[-1], other, f"{offsets[-1]} entries as {name} says", f"{array.size}")
    in_range = not labels.size or int(labels.max()) < manifest.label_count
    require(in_range, layout.RERANK_LABELS, f"label rows below {manifest.label_count}", "one beyond")
    words = offsets.size - 1
    if manifest.input.kind == "features":
        require(words == manifest.input.dimension, name, f"{manifest.input.dimension} features", f"{words}")
    per_word = [name for name in (layout.RERANK_SCALES, layout.RERANK_IDF) if name in arrays]
    for other in per_word:
        require(arrays[other].size == words, other, f"a number for each of {words} words", f"{arrays[other].size}")
    finite = all(bool(np.isfinite(arrays[other]).all()) for other in (layout.RERANK_VALUES, *per_word))
    require(finite, layout.RERANK_VALUES, "finite numbers, there and in the arrays by word", "NaN or infinity")
    require(bool((scales > 0).all()), layout.RERANK_SCALES, "scales above 0", "others")
    if manifest.rerank is not None and manifest.rerank.terms:
        _check_terms(arrays, words)


def _check_terms(arrays: Arrays, words: int) -> None:
    offsets, pieces = arrays[layout.RERANK_PIECE_OFFSETS], arrays[layout.RERANK_PIECES]
    pairs = arrays[layout.RERANK_PAIRS]
    name, tokens = layout.RERANK_PIECE_OFFSETS, offsets.size - 1
    require(offsets.size >= 2 and offsets[0] == 0, name, "a first offset of 0, and others", "something else")
    require(bool((np.diff(offsets) >= 0).all()), name, "offsets that never fall", "falling ones")
    require(pieces.size == offsets[-1], layout.RERANK_PIECES, f"{offsets[-1]} entries as {name} says", f"{pieces.size}")
    in_range = not pieces.size or (int(pieces.min()) >= 0 and int(pieces.max()) < tokens)
    require(in_range, layout.RERANK_PIECES, f"token ids in 0..{tokens - 1}", "one outside")
    name = layout.RERANK_PAIRS
    require(bool((np.diff(pairs) > 0).all()), name, "rising pairs", "others")
    in_range = not pairs.size or (int(pairs[0]) >= 0 and int(pairs[-1]) < tokens**2)
    require(in_range, name, f"pairs of token ids below {tokens}", "others")
    require(tokens + pairs.size == words, name, f"{words - tokens} pairs, as there are words", f"{pairs.size}")


def _check_per_row(arrays: Arrays, name: str) -> None:
    values, rows = arrays[name], arrays[layout.DECLARE_VOTES_INDPTR].size - 1
    require(values.size == rows, name, f"a number for each of {rows} rows", f"{values.size} numbers")
    require(bool((np.isfinite(values) & (values > 0)).all()), name, "finite numbers above 0", "others")


def _check_rows(arrays: Arrays) -> None:
    rows, voting = len(arrays[layout.DECLARE_ROWS]), arrays[layout.DECLARE_VOTES_INDPTR].size - 1
    require(rows == voting, layout.DECLARE_ROWS, f"a vector for each of {voting} rows", f"{rows} vectors")
    _check_finite(arrays, layout.DECLARE_ROWS)


def _check_finite(arrays: Arrays, name: str) -> None:
    require(bool(np.isfinite(arrays[name]).all()), name, "finite numbers", "NaN or infinity")


def _ascends_in_rows(indptr: NDArray[Any], indices: NDArray[Any]) -> bool:
    ascends = indices[1:] > indices[:-1]
    row_starts = indptr[(indptr > 0) & (indptr < indices.size)]
    ascends[row_starts - 1] = True  # from one row's last label to the next row's first, anything goes
    return bool(ascends.all())


def require(holds: bool | np.bool_, name: str, expected: str, found: str) -> None:
    """Refuse a file that does not hold what it must.

    Raises:
        BundleError: it does not.
    """
    if not holds:
        raise BundleError(f"{name}: expected {expected}, found {found}")
