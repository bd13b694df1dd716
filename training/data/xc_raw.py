"""XC raw layout: texts as JSON lines in `trn`, `dev`, `tst` and `lbl` files (`.json` or `.jsonl`, plain or gzipped)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from training.data.files import DataError, excerpt, find_roles
from training.data.json_lines import Record, read_json_lines, require_field, text_field
from training.data.points import Point, make_targets


class RawLayout:
    """Texts and labels of one folder; the label file is read on construction, points are streamed.

    Raises:
        DataError: from the constructor, when a file is missing or the label file is wrong.
    """

    PATTERN: ClassVar[re.Pattern[str]] = re.compile(r"(?P<role>trn|dev|tst|lbl)\.jsonl?(\.gz)?")
    input: Literal["text", "features"] = "text"
    feature_count: int | None = None

    def __init__(self, folder: Path) -> None:
        files = find_roles(folder, self.PATTERN)
        label_file = files.pop("lbl", None)
        if label_file is None:
            raise DataError(folder, None, "a label file 'lbl.json.gz' beside the points", "none")
        if not files:
            raise DataError(folder, None, f"points beside '{label_file.name}': 'trn.json.gz' or 'tst.json.gz'", "none")
        self.files = files
        self.label_ids, self.label_texts = _read_labels(label_file)

    def points(self, split: str) -> Iterator[Point]:
        """Stream the points of one split that is in `files`; see `Source.points`."""
        file, label_count = self.files[split], len(self.label_ids)
        for line, record in read_json_lines(file):
            text_field(file, line, record, "uid")
            text = _full_text(file, line, record)
            labels, relevances = _targets(file, line, record, label_count)
            yield Point(text, None, None, labels, relevances)


def _read_labels(file: Path) -> tuple[list[str], list[str] | None]:
    """Read ids and texts; the first label decides whether labels have texts, and all must agree."""
    first_lines: dict[str, int] = {}  # in the order of label rows
    texts: list[str] = []
    for line, record in read_json_lines(file):
        uid = text_field(file, line, record, "uid")
        if not uid:
            raise DataError(file, line, "a non-empty 'uid'", excerpt(uid))
        first_line = first_lines.setdefault(uid, line)
        if first_line != line:
            raise DataError(file, line, "every label 'uid' once", f"{excerpt(uid)}, which line {first_line} has too")
        if texts or (line == 1 and "title" in record):
            texts.append(_full_text(file, line, record))
        elif "title" in record:
            raise DataError(file, line, "no 'title', as the labels above have none", excerpt(record["title"]))
    if not first_lines:
        raise DataError(file, 1, "at least one label", "an empty file")
    return list(first_lines), texts or None


def _full_text(file: Path, line: int, record: Record) -> str:
    title = text_field(file, line, record, "title")
    content = text_field(file, line, record, "content") if "content" in record else ""
    if not content:
        return title
    # The first line is the heading, whatever stands in it.
    return f"{' '.join(title.split())}\n{content}"


def _targets(file: Path, line: int, record: Record, label_count: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    labels = require_field(file, line, record, "target_ind")
    if not (type(labels) is list and set(map(type, labels)) <= {int}):
        raise DataError(file, line, "a list of label rows as 'target_ind'", excerpt(labels))
    if "target_rel" not in record:
        return make_targets(file, line, labels, None, label_count)
    relevances = record["target_rel"]
    if not (type(relevances) is list and set(map(type, relevances)) <= {int, float}):
        raise DataError(file, line, "a list of numbers as 'target_rel'", excerpt(relevances))
    return make_targets(file, line, labels, relevances, label_count)
