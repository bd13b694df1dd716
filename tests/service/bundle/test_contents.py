"""Arrays of the wrong kind or with impossible contents are refused, even when every checksum agrees."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from service.bundle import layout, open_bundle
from service.errors import BundleError
from tests.bundles import resign
from tests.service.bundle.damage import ArrayChange, change_array

Copy = Callable[..., Path]


ARRAY_DAMAGES: list[tuple[str, str, ArrayChange, str]] = [
    ("mach", layout.MACH_BUCKETS, lambda a: a.astype(np.int64), "expected dtype uint8, found int64"),
    ("mach", layout.MACH_BUCKETS, lambda a: a[:, :-1], r"expected shape \(40, 4\), found \(40, 3\)"),
    ("mach", layout.MACH_BUCKETS, np.ravel, r"expected shape \(40, 4\), found \(160,\)"),
    ("mach", layout.MACH_BUCKETS, np.asfortranarray, "expected a little-endian array in C order, found"),
    (
        "mach",
        layout.MACH_INVERTED_OFFSETS,
        lambda a: a.astype(">i4"),
        "expected a little-endian array in C order, found >i4",
    ),
    ("declare", layout.DECLARE_FACTORS, lambda a: a[:, :-1], r"expected shape \(40, 6\), found \(40, 5\)"),
    ("declare", layout.DECLARE_VOTES_INDPTR, lambda a: a[:, None], r"expected shape \(any\), found \(51, 1\)"),
    ("declare", layout.DECLARE_VOTES_DATA, lambda a: a.astype(np.float64), "expected dtype float32, found float64"),
    ("unidec", layout.LABEL_VECTORS, lambda a: a[:-1], r"expected shape \(40, 8\), found \(39, 8\)"),
    ("ova", layout.LABEL_VECTORS, lambda a: a.astype(np.float16), "expected dtype float32, found float16"),
    ("mach", layout.LABEL_OFFSETS, lambda a: a[:-1], r"expected shape \(41\), found \(40,\)"),
]


@pytest.mark.parametrize(("method", "name", "change", "sentence"), ARRAY_DAMAGES)
def test_arrays_of_the_wrong_kind(copy: Copy, method: str, name: str, change: ArrayChange, sentence: str) -> None:
    path = copy(method=method)
    change_array(path, name, change)
    resign(path)
    with pytest.raises(BundleError, match=f"bundle .*: {name}: {sentence}"):
        open_bundle(path)


def put(row: object, value: float) -> ArrayChange:
    """A change that sets one entry."""

    def change(array: NDArray[Any]) -> NDArray[Any]:
        array[row] = value
        return array

    return change


CONTENT_DAMAGES: list[tuple[str, str, ArrayChange, str]] = [
    ("mach", layout.MACH_BUCKETS, put((39, 3), 16), "expected bucket numbers below 16, found 16"),
    (
        "mach",
        layout.MACH_INVERTED_OFFSETS,
        put((2, 5), 99),
        "expected offsets from 0 that never fall, found others",
    ),
    (
        "mach",
        layout.MACH_INVERTED_OFFSETS,
        lambda a: a + 1,
        "expected offsets from 0 that never fall, found others",
    ),
    (
        "mach",
        layout.MACH_INVERTED_STEPS,
        lambda a: a[::-1].copy(),
        "expected the lists of buckets.npy, found others in repetition 0",
    ),
    (
        "mach",
        layout.MACH_INVERTED_PARTNERS,
        put(159, 16),
        "expected the lists of buckets.npy, found others in repetition 3",
    ),
    ("mach", layout.MACH_INVERTED_STEPS, put(3, 0), "expected the lists of buckets.npy, found others in repetition 0"),
    ("mach", layout.MACH_INVERTED_STEPS, lambda a: np.append(a, a[:1]), "expected 160 entries as .* says, found 161"),
    ("declare", layout.DECLARE_VOTES_INDPTR, put(0, 1), "expected a first offset of 0, found 1"),
    ("declare", layout.DECLARE_VOTES_INDPTR, put(1, 999), "expected offsets that never fall, found falling ones"),
    ("declare", layout.DECLARE_VOTES_INDPTR, lambda a: a[:1], "expected at least one training row, found 1 offsets"),
    (
        "declare",
        layout.DECLARE_VOTES_INDICES,
        lambda a: a[:-1],
        r"expected \d+ entries as votes.indptr.npy says, found \d+",
    ),
    (
        "declare",
        layout.DECLARE_VOTES_DATA,
        lambda a: a[:-1],
        r"expected \d+ entries as votes.indptr.npy says, found \d+",
    ),
    ("declare", layout.DECLARE_VOTES_INDICES, put(0, 40), r"expected label rows in 0\.\.39, found one outside"),
    (
        "declare",
        layout.DECLARE_VOTES_INDICES,
        lambda a: a[::-1].copy(),
        "expected ascending, distinct labels in each row",
    ),
    ("declare", layout.DECLARE_VOTES_DATA, put(0, 0.0), "expected finite votes above 0"),
    ("declare", layout.DECLARE_VOTES_DATA, put(0, np.nan), "expected finite votes above 0"),
    ("declare", layout.DECLARE_FACTORS, put((0, 0), np.inf), "expected finite numbers, found NaN or infinity"),
    ("unidec", layout.LABEL_VECTORS, put((0, 0), np.inf), "expected finite numbers, found NaN or infinity"),
    ("ova", layout.LABEL_VECTORS, put((39, 7), np.nan), "expected finite numbers, found NaN or infinity"),
    ("mach", layout.LABEL_OFFSETS, put(0, 1), "expected a first offset of 0, found 1"),
    ("mach", layout.LABEL_OFFSETS, put(1, 999), "expected offsets of lines of 3 bytes and more, found shorter ones"),
    (
        "mach",
        layout.LABEL_OFFSETS,
        put(40, 9999),
        r"expected a last offset of \d+, the size of labels.jsonl, found 9999",
    ),
    ("mach", layout.LABEL_OFFSETS, put(1, 9), "expected offsets at the lines of labels.jsonl, found one within a line"),
]


@pytest.mark.parametrize(("method", "name", "change", "sentence"), CONTENT_DAMAGES)
def test_contents_that_contradict_themselves(
    copy: Copy, method: str, name: str, change: ArrayChange, sentence: str
) -> None:
    path = copy(method=method)
    change_array(path, name, change)
    resign(path)
    with pytest.raises(BundleError, match=f"bundle .*: {name}: {sentence}"):
        open_bundle(path)


@pytest.mark.parametrize(
    ("name", "change", "sentence"),
    [
        (layout.LABEL_RESTS, put(3, 0.0), "expected the lengths that labels.leading.npy leaves, found others"),
        (layout.LABEL_RESTS, lambda a: -a, "expected the lengths that labels.leading.npy leaves, found others"),
        (layout.LABEL_RESTS, put(3, np.nan), "expected the lengths that labels.leading.npy leaves, found others"),
        (layout.LABEL_RESTS, lambda a: a[:-1], r"expected shape \(40\), found \(39,\)"),
        (layout.LABEL_LEADING, put((0, 0), np.inf), "expected finite numbers, found NaN or infinity"),
        (layout.LABEL_LEADING, lambda a: a[:, :-1], r"expected shape \(40, 3\), found \(40, 2\)"),
    ],
)
def test_leading_coordinates_that_would_hide_labels(copy: Copy, name: str, change: ArrayChange, sentence: str) -> None:
    path = copy(method="unidec", leading=3)
    change_array(path, name, change)
    resign(path)
    with pytest.raises(BundleError, match=f"bundle .*: {name}: {sentence}"):
        open_bundle(path)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (put(7, 0), "expected finite numbers above 0, found others"),
        (put(7, -1), "expected finite numbers above 0, found others"),
        (put(7, np.nan), "expected finite numbers above 0, found others"),
        (lambda a: a[:-1], r"expected shape \(40\), found \(39,\)"),
        (lambda a: a.astype(np.float64), "expected dtype float32, found float64"),
    ],
)
def test_inverse_propensities_must_make_sense(copy: Copy, change: ArrayChange, sentence: str) -> None:
    path = copy(propensity_weight=1.0)
    change_array(path, layout.INVERSE_PROPENSITIES, change)
    resign(path)
    with pytest.raises(BundleError, match=f"bundle .*: inverse_propensities.npy: {sentence}"):
        open_bundle(path)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda a: a[:-1], "expected a vector for each of 50 rows, found 49 vectors"),
        (lambda a: a[:, :-1], r"expected shape \(any, 6\), found \(50, 5\)"),
        (put((3, 3), np.nan), "expected finite numbers, found NaN or infinity"),
    ],
)
def test_vectors_of_rows_that_cannot_be_right(copy: Copy, change: ArrayChange, sentence: str) -> None:
    assert_refused(copy(method="declare", recovery="rows"), layout.DECLARE_ROWS, change, sentence)


def assert_refused(path: Path, name: str, change: ArrayChange, sentence: str) -> None:
    """A bundle that opens, and after the change does not."""
    open_bundle(path)
    change_array(path, name, change)
    resign(path)
    with pytest.raises(BundleError, match=f"bundle .*: {name}: {sentence}"):
        open_bundle(path)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda a: a[:-1], "expected offsets of 50 rows and an end, found 50 offsets"),
        (put(0, 1), "expected a first offset of 0, found 1"),
        (put(2, 6), "expected offsets of lines of 3 bytes and more, found shorter ones"),
        (put(50, 9999), r"expected a last offset of \d+, the size of votes.texts.jsonl, found 9999"),
        (put(1, 9), "expected offsets at the lines of votes.texts.jsonl, found one within a line"),
    ],
)
def test_offsets_of_texts_that_cannot_be_right(copy: Copy, change: ArrayChange, sentence: str) -> None:
    assert_refused(copy(method="declare", row_texts=True), layout.DECLARE_TEXT_OFFSETS, change, sentence)


def test_texts_are_utf_8(copy: Copy) -> None:
    path = copy(method="declare", row_texts=True)
    file = path / layout.DECLARE_TEXTS
    file.write_bytes(file.read_bytes().replace("é".encode(), b"\xff\xfe"))
    resign(path)
    with pytest.raises(BundleError, match=r"votes\.texts\.jsonl: expected UTF-8, found invalid start byte"):
        open_bundle(path)


@pytest.mark.parametrize(
    ("name", "change", "sentence"),
    [
        (layout.RERANK_OFFSETS, put(0, 1), "expected a first offset of 0, and others, found something else"),
        (layout.RERANK_OFFSETS, put(1, 10**6), "expected offsets that never fall, found falling ones"),
        (layout.RERANK_LABELS, lambda a: a[:-1], "expected [0-9]+ entries as rerank.offsets.npy says, found [0-9]+"),
        (layout.RERANK_LABELS, put(3, 40), "expected label rows below 40, found one beyond"),
        (layout.RERANK_LABELS, lambda a: a.astype(np.int32), "expected dtype uint16, found int32"),
        (layout.RERANK_VALUES, lambda a: a[:-1], "expected [0-9]+ entries as rerank.offsets.npy says, found [0-9]+"),
        (layout.RERANK_VALUES, put(0, np.nan), "expected finite numbers, there and in the arrays by word, found NaN"),
        (layout.RERANK_SCALES, lambda a: a[:-1], "expected a number for each of [0-9]+ words, found [0-9]+"),
        (layout.RERANK_SCALES, put(0, 0), "expected scales above 0, found others"),
        (layout.RERANK_IDF, lambda a: a[:-1], "expected a number for each of [0-9]+ words, found [0-9]+"),
    ],
)
def test_classifiers_that_cannot_be_right(copy: Copy, name: str, change: ArrayChange, sentence: str) -> None:
    assert_refused(copy(reranked=True), name, change, sentence)


@pytest.mark.parametrize(
    ("name", "change", "sentence"),
    [
        (layout.RERANK_PIECE_OFFSETS, put(0, 1), "expected a first offset of 0, and others, found something else"),
        (layout.RERANK_PIECE_OFFSETS, lambda a: a[:1], "expected a first offset of 0, and others, found something"),
        (layout.RERANK_PIECE_OFFSETS, put(1, 3), "expected offsets that never fall, found falling ones"),
        (layout.RERANK_PIECE_OFFSETS, lambda a: a.astype(np.int16), "expected dtype int32 or int64, found int16"),
        (layout.RERANK_PIECES, lambda a: a[:-1], "expected 4 entries as rerank.pieces.offsets.npy says, found 3"),
        (layout.RERANK_PIECES, put(2, 21), r"expected token ids in 0\.\.20, found one outside"),
        (layout.RERANK_PIECES, put(2, -1), r"expected token ids in 0\.\.20, found one outside"),
        (layout.RERANK_PIECES, lambda a: a.astype(np.int64), "expected dtype int32, found int64"),
        (layout.RERANK_PAIRS, lambda a: a[::-1].copy(), "expected rising pairs, found others"),
        (layout.RERANK_PAIRS, lambda a: a[[0, 0, 1]], "expected rising pairs, found others"),
        (layout.RERANK_PAIRS, put(0, -1), "expected pairs of token ids below 21, found others"),
        (layout.RERANK_PAIRS, put(2, 21 * 21), "expected pairs of token ids below 21, found others"),
        (layout.RERANK_PAIRS, lambda a: a[:-1], "expected 3 pairs, as there are words, found 2"),
        (layout.RERANK_PAIRS, lambda a: a[:, None], r"expected shape \(any\), found \(3, 1\)"),
    ],
)
def test_terms_that_cannot_be_right(copy: Copy, name: str, change: ArrayChange, sentence: str) -> None:
    assert_refused(copy(reranked=True, terms=True), name, change, sentence)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda a: a[:-1], "expected a number for each of 30 words, found 29"),
        (lambda a: a.astype(np.float64), "expected dtype float32, found float64"),
    ],
)
def test_weights_of_features_that_cannot_be_right(copy: Copy, change: ArrayChange, sentence: str) -> None:
    path = copy(reranked=True, input="features", present=True)
    open_bundle(path)
    change_array(path, layout.RERANK_IDF, change)
    resign(path)
    with pytest.raises(BundleError, match=f"bundle .*: {layout.RERANK_IDF}: {sentence}"):
        open_bundle(path)


def test_classifiers_are_of_the_features_there_are(copy: Copy) -> None:
    path = copy(reranked=True, input="features")
    open_bundle(path)
    kept = int(np.load(path / layout.RERANK_OFFSETS)[-2])
    for name in (layout.RERANK_OFFSETS, layout.RERANK_SCALES):
        change_array(path, name, lambda a: a[:-1])
    for name in (layout.RERANK_LABELS, layout.RERANK_VALUES):
        change_array(path, name, lambda a: a[:kept])
    resign(path)
    with pytest.raises(BundleError, match=r"rerank\.offsets\.npy: expected [0-9]+ features, found [0-9]+"):
        open_bundle(path)


@pytest.mark.parametrize("name", [layout.DECLARE_VOTES_COUNTS, layout.DECLARE_LENGTHS])
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda a: a[:-1], "expected a number for each of 50 rows, found 49 numbers"),
        (put(3, 0), "expected finite numbers above 0, found others"),
        (put(3, -1), "expected finite numbers above 0, found others"),
    ],
)
def test_numbers_of_rows_that_cannot_be_right(copy: Copy, name: str, change: ArrayChange, sentence: str) -> None:
    path = copy(method="declare", merged=True, divided=True)
    open_bundle(path)
    change_array(path, name, change)
    resign(path)
    with pytest.raises(BundleError, match=f"bundle .*: {name}: {sentence}"):
        open_bundle(path)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        (b"label-00", b"label-\xff0", "expected UTF-8, found invalid start byte at byte 13"),
        (b'{"id"', b'{"id;', "expected a JSON object a line, found: .*"),
        (b'"text"', b'"TEXT"', "expected records with strings id, text, found id, TEXT"),
    ],
)
def test_label_records_must_be_what_answers_are_made_of(copy: Copy, old: bytes, new: bytes, sentence: str) -> None:
    path = copy()
    file = path / layout.LABELS
    file.write_bytes(file.read_bytes().replace(old, new, 1))
    resign(path)
    with pytest.raises(BundleError, match=rf"labels\.jsonl: {sentence}"):
        open_bundle(path)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (put((1, -1), 0x80), "expected no bits beyond 38 labels, found some"),
        (put((0, 0), 0), r"expected \d+ labels in group 'at' as the manifest says, found \d+"),
        (lambda bits_GW: bits_GW[:1], r"expected shape \(2, 5\), found \(1, 5\)"),
        (lambda bits_GW: bits_GW[:, :4], r"expected shape \(2, 5\), found \(2, 4\)"),
    ],
)
def test_groups_that_contradict_the_manifest_are_refused(copy: Copy, change: ArrayChange, sentence: str) -> None:
    path = copy(groups=("at", "de"), label_count=38)
    change_array(path, layout.LABEL_GROUPS, change)
    resign(path)
    with pytest.raises(BundleError, match=f"labels.groups.npy: {sentence}"):
        open_bundle(path)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (put(-1, 0x80), "expected no bits beyond 38 labels, found some"),
        (put(0, 0), "expected 3 disabled labels as the manifest says, found 1"),
        (lambda bits_W: bits_W[:-1], r"expected shape \(5\), found \(4,\)"),
    ],
)
def test_disabled_labels_that_contradict_the_manifest_are_refused(
    copy: Copy, change: ArrayChange, sentence: str
) -> None:
    path = copy(disabled=(0, 3, 37), label_count=38)
    open_bundle(path)
    change_array(path, layout.LABELS_DISABLED, change)
    resign(path)
    with pytest.raises(BundleError, match=f"labels.disabled.npy: {sentence}"):
        open_bundle(path)
