"""XC sparse layout in one file a split: header `N D L`, then rows `label,label feature:value feature:value ...`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Literal

from training.data.files import DataError, excerpt, find_roles
from training.data.points import Point, make_targets
from training.data.sparse_rows import agreed_count, parse_features, read_header, read_label_names, read_rows

SPLITS = {"train": "trn", "test": "tst"}


class SparseLayout:
    """Bags of features and labels of one folder; headers are read on construction, points are streamed.

    Raises:
        DataError: from the constructor, when headers are wrong or disagree, or label names do not fit them.
    """

    PATTERN: ClassVar[re.Pattern[str]] = re.compile(r"(?!filter_labels_)(?:.*_)?(?P<role>train|test)\.txt(\.gz)?")
    input: Literal["text", "features"] = "features"
    label_texts: list[str] | None = None

    def __init__(self, folder: Path) -> None:
        self.files = {SPLITS[role]: file for role, file in find_roles(folder, self.PATTERN).items()}
        headers = {split: read_header(file, ("points", "features", "labels")) for split, file in self.files.items()}
        self._row_counts = {split: header[0] for split, header in headers.items()}
        self.feature_count: int = agreed_count({self.files[split]: h[1] for split, h in headers.items()}, "features")
        label_count = agreed_count({self.files[split]: h[2] for split, h in headers.items()}, "labels")
        self.label_ids = read_label_names(folder / "labels.txt", label_count)

    def points(self, split: str) -> Iterator[Point]:
        """Stream the points of one split that is in `files`; see `Source.points`."""
        file, label_count = self.files[split], len(self.label_ids)
        for line, row in read_rows(file, self._row_counts[split]):
            labels, _, pairs = row.partition(b" ")
            targets = make_targets(file, line, _parse_labels(file, line, labels), None, label_count)
            yield Point(None, *parse_features(file, line, pairs, self.feature_count), *targets)


def _parse_labels(file: Path, line: int, labels: bytes) -> list[int]:
    if not labels:
        return []
    try:
        if labels.translate(None, b"0123456789,"):
            raise ValueError("not label,label,...")
        return list(map(int, labels.split(b",")))
    except ValueError as error:  # also an empty part, or more digits than int takes
        expected = "label rows separated by commas, or a leading space where there are none"
        raise DataError(file, line, expected, excerpt(labels)) from error
