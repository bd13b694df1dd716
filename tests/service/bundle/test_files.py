from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from service.bundle import content_version, encode_labels, file_entry
from service.bundle.files import map_array, map_bytes
from service.bundle.labels import LabelTable
from service.bundle.layout import bucket_dtype, offset_dtype
from service.bundle.manifest import (
    ChangesSection,
    DeclareSection,
    FeaturesInput,
    FileEntry,
    PlattMap,
    PropensitySection,
    RerankSection,
    TextInput,
)
from service.bundle.searching import IndexPoint, IndexSection, UnidecSection
from tests.bundles import CALIBRATION

PINNED = "3c19f1a07b17"
PROPENSITY = PropensitySection(weight=1.0, candidates=5)
LEVEL = PlattMap(slope=1.0, intercept=0.0)
RERANK = RerankSection(candidates=5, nominees=2, share=0.5, own=LEVEL, words=LEVEL)
SECTION = DeclareSection(rank=3, neighbours=2, recovery="rows")


def test_an_entry_holds_size_and_digest(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"abc")
    assert file_entry(tmp_path / "a.onnx") == FileEntry(size=3, sha256=hashlib.sha256(b"abc").hexdigest())


def test_an_array_entry_holds_dtype_and_shape_as_well(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((2, 0), dtype=np.uint16))
    entry = file_entry(tmp_path / "a.npy")
    assert (entry.dtype, entry.shape) == ("uint16", (2, 0))


def test_other_numpy_files_are_refused(tmp_path: Path) -> None:
    with (tmp_path / "a.npy").open("wb") as stream:
        np.savez(stream, a=np.zeros(2))
    with pytest.raises(ValueError, match="magic string"):
        map_array(tmp_path / "a.npy")


def test_the_version_covers_what_decides_an_answer_and_nothing_else() -> None:
    files = {"a": FileEntry(size=1, sha256="0" * 64), "b": FileEntry(size=2, sha256="1" * 64)}
    version = content_version(TextInput(max_tokens=8), SECTION, files)
    assert len(version) == 12
    assert version == content_version(TextInput(max_tokens=8), SECTION, dict(reversed(files.items())))
    others = {
        content_version(TextInput(max_tokens=9), SECTION, files),
        content_version(FeaturesInput(dimension=8), SECTION, files),
        content_version(TextInput(max_tokens=8), SECTION.model_copy(update={"rank": 4}), files),
        content_version(TextInput(max_tokens=8), SECTION, {"a": files["a"]}),
        content_version(TextInput(max_tokens=8), SECTION, {"a": files["b"], "b": files["a"]}),
        content_version(TextInput(max_tokens=8), SECTION, files, CALIBRATION),
        content_version(TextInput(max_tokens=8), SECTION, files, CALIBRATION, PROPENSITY),
        content_version(
            TextInput(max_tokens=8), SECTION, files, CALIBRATION, PROPENSITY.model_copy(update={"weight": 2.0})
        ),
        content_version(TextInput(max_tokens=8, heading_weight=2.0), SECTION, files),
        content_version(TextInput(max_tokens=8), SECTION, files, groups={"a": 1, "b": 2}),
        content_version(TextInput(max_tokens=8), SECTION, files, groups={"a": 1, "c": 2}),
        content_version(TextInput(max_tokens=8), SECTION, files, changes=ChangesSection(zero_shot=0, disabled=1)),
        *(
            content_version(TextInput(max_tokens=8), SECTION, files, rerank=RERANK.model_copy(update=changes))
            for changes in ({}, {"terms": True}, {"present": True})
        ),
    }
    assert len(others - {version}) == 15


def test_a_bundle_without_sections_on_scores_keeps_the_version_it_was_written_with() -> None:
    """By the digest of a manifest that knew of none."""
    files = {"a": FileEntry(size=1, sha256="0" * 64)}
    written = {
        "input": {"kind": "text", "max_tokens": 8},
        "method": {"name": "declare", "neighbours": 2, "rank": 3, "recovery": "rows"},
        "files": {"a": {"dtype": None, "sha256": "0" * 64, "shape": None, "size": 1}},
    }
    canonical = json.dumps(written, sort_keys=True, separators=(",", ":"))
    expected = hashlib.sha256(canonical.encode()).hexdigest()[:12]
    assert content_version(TextInput(max_tokens=8), SECTION, files) == expected


def test_fields_that_say_nothing_leave_the_version_alone() -> None:
    """A bundle older than an optional field has the version that it was given, which is pinned here."""
    files = {"a": FileEntry(size=1, sha256="0" * 64)}
    assert content_version(TextInput(max_tokens=8), SECTION, files) == PINNED
    assert content_version(TextInput(max_tokens=8, heading_weight=0), SECTION, files) == PINNED
    assert set(RERANK.model_dump()) == {"candidates", "nominees", "share", "own", "words"}
    for changes in ({"merged": True}, {"temperature": 0.5}):
        assert content_version(TextInput(max_tokens=8), SECTION.model_copy(update=changes), files) != PINNED


CODED: dict[str, object] = {"type": "hnsw", "recall": 0.5, "candidates": 3, "directions": 4}


def test_the_version_covers_an_index_but_not_what_it_was_chosen_from() -> None:
    """By the digest of a manifest that knew no more of an index than its type, recall and codes."""
    files = {"a": FileEntry(size=1, sha256="0" * 64)}

    def version(**changes: object) -> str:
        index = IndexSection.model_validate(CODED | changes)
        return content_version(TextInput(max_tokens=8), UnidecSection(dimension=4, index=index), files)

    written = {
        "input": {"kind": "text", "max_tokens": 8},
        "method": {"name": "unidec", "dimension": 4, "index": CODED},
        "files": {"a": {"dtype": None, "sha256": "0" * 64, "shape": None, "size": 1}},
    }
    canonical = json.dumps(written, sort_keys=True, separators=(",", ":"))
    assert version() == hashlib.sha256(canonical.encode()).hexdigest()[:12]
    point = IndexPoint(type="flat", recall=1.0, p50_ms=2.0, size_bytes=8)
    assert version(curve=(point,)) == version()
    others: list[dict[str, object]] = [
        {"recall_at": 100},
        {"effort": 3},
        {"candidates": 7},
        {"directions": 2},
        {"type": "ivf", "span": 0.5},
        {"type": "ivf", "span": 0.25},
    ]
    assert len({version(**changes) for changes in ({}, *others)}) == 1 + len(others)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"type": "flat", "candidates": 3}, "candidates: expected null with type flat alone, found 3 with flat"),
        ({"type": "hnsw"}, "candidates: expected null with type flat alone, found None with hnsw"),
        ({"type": "hnsw", "candidates": 3}, "directions: expected null with type flat alone, found None with hnsw"),
        ({"type": "ivf", "candidates": 3, "directions": 4}, "span: expected a number with type ivf alone, found None"),
        (
            {"type": "hnsw", "candidates": 3, "directions": 4, "span": 0.5},
            "span: expected a number with type ivf alone, found 0.5",
        ),
    ],
)
def test_an_index_has_what_its_type_needs(changes: dict[str, object], fault: str) -> None:
    with pytest.raises(ValidationError, match=fault):
        IndexSection.model_validate({"recall": 1.0, **changes})


@pytest.mark.parametrize(
    ("buckets", "dtype"), [(256, "uint8"), (257, "uint16"), (65_536, "uint16"), (65_537, "uint32")]
)
def test_buckets_take_the_narrowest_type_that_holds_them(buckets: int, dtype: str) -> None:
    assert bucket_dtype(buckets) == dtype
    assert np.iinfo(dtype).max >= buckets - 1


@pytest.mark.parametrize(("last", "dtype"), [(0, "int32"), (2**31 - 1, "int32"), (2**31, "int64")])
def test_offset_type_is_the_narrower(last: int, dtype: str) -> None:
    assert offset_dtype(last) == dtype
    assert np.iinfo(dtype).max >= last


@pytest.mark.parametrize("texts", [None, ["", 'a "quoted" text\n', "日本"]])
def test_labels_come_back_by_row(tmp_path: Path, texts: list[str] | None) -> None:
    ids = ["é", "", "plain"]
    lines, offsets = encode_labels(ids, texts)
    (tmp_path / "lines").write_bytes(lines)
    table = LabelTable(map_bytes(tmp_path / "lines"), offsets)
    assert [table.id(row) for row in range(len(table))] == ids
    assert [table.text(row) for row in range(len(table))] == (texts or [None] * 3)
    assert [json.loads(record + b"}") for record in table.open_records([2, 0])] == [
        {"id": ids[row]} if texts is None else {"id": ids[row], "text": texts[row]} for row in (2, 0)
    ]
    for row in (-1, 3):
        with pytest.raises(IndexError, match=r"outside 0\.\.2"):
            table.id(row)


def test_the_last_labels_may_be_marked_as_added() -> None:
    lines, offsets = encode_labels(["a", "b", "c"], ["x", "y", "z"], zero_shot=2)
    assert lines.decode().split("\n")[:-1] == [
        '{"id":"a","text":"x"}',
        '{"id":"b","text":"y","zero_shot":true}',
        '{"id":"c","text":"z","zero_shot":true}',
    ]
    assert [lines[start:][:6] for start in offsets[:-1]] == [b'{"id":'] * 3
