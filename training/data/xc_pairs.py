"""XC sparse layout in two files a split: features in `trn_X_Xf.txt`, labels in `trn_X_Y.txt`, both as sparse rows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Literal

from training.data.files import DataError, find_roles
from training.data.points import Point, make_targets
from training.data.sparse_rows import (
    agreed_count,
    parse_features,
    parse_pairs,
    read_header,
    read_label_names,
    read_rows,
)

SPLITS = ("trn", "tst")


class PairLayout:
    """Bags of features and weighted labels of one folder; headers are read on construction, points are streamed.

    Raises:
        DataError: from the constructor, when half a pair is missing, headers are wrong or disagree, or label names do
            not fit them.
    """

    PATTERN: ClassVar[re.Pattern[str]] = re.compile(r"(?P<role>(trn|tst)_X_(Xf|Y))\.txt(\.gz)?")
    input: Literal["text", "features"] = "features"
    label_texts: list[str] | None = None

    def __init__(self, folder: Path) -> None:
        found = find_roles(folder, self.PATTERN)
        self.files: dict[str, Path] = {}
        self._label_files: dict[str, Path] = {}
        for split in SPLITS:
            features, labels = found.get(f"{split}_X_Xf"), found.get(f"{split}_X_Y")
            if features is not None and labels is not None:
                self.files[split], self._label_files[split] = features, labels
            elif features is not None or labels is not None:
                raise DataError(
                    folder, None, f"'{split}_X_Xf.txt' and '{split}_X_Y.txt' together", "only one of the two"
                )
        headers = {split: read_header(file, ("points", "features")) for split, file in self.files.items()}
        label_headers = {split: read_header(file, ("points", "labels")) for split, file in self._label_files.items()}
        self._row_counts = {
            split: agreed_count({file: headers[split][0], self._label_files[split]: label_headers[split][0]}, "points")
            for split, file in self.files.items()
        }
        self.feature_count: int = agreed_count({self.files[split]: h[1] for split, h in headers.items()}, "features")
        label_count = agreed_count({self._label_files[split]: h[1] for split, h in label_headers.items()}, "labels")
        self.label_ids = read_label_names(folder / "labels.txt", label_count)

    def points(self, split: str) -> Iterator[Point]:
        """Stream the points of one split that is in `files`; see `Source.points`."""
        file, label_file, count = self.files[split], self._label_files[split], self._row_counts[split]
        label_count = len(self.label_ids)
        rows = zip(read_rows(file, count), read_rows(label_file, count), strict=True)
        for (line, features), (label_line, label_row) in rows:
            labels, relevances = parse_pairs(label_file, label_line, label_row)
            targets = make_targets(label_file, label_line, labels.tolist(), relevances.tolist(), label_count)
            yield Point(None, *parse_features(file, line, features, self.feature_count), *targets)
