"""From a data folder to streamed points: the door through which training and evaluation see data.

The layout is told apart by the files present. What does not fit its layout is refused with a `DataError`; nothing is
skipped or repaired silently, and no more than one line is held at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from training.data import sample
from training.data.card import Card, read_card
from training.data.files import DataError, find_roles
from training.data.filters import FILE_NAMES, check_rows, read_filter, remove_pairs
from training.data.points import Point
from training.data.xc_pairs import PairLayout
from training.data.xc_raw import RawLayout
from training.data.xc_sparse import SparseLayout

__all__ = ["Card", "DataError", "Point", "Source", "open_named", "open_source"]

SPLITS = ("trn", "dev", "tst")
SAMPLE = "sample"
LAYOUTS = (RawLayout, SparseLayout, PairLayout)


class Layout(Protocol):
    """What `Source` asks of the files of one folder, whatever their layout."""

    @property
    def input(self) -> Literal["text", "features"]:
        """Whether points are texts or bags of features."""

    @property
    def feature_count(self) -> int | None:
        """Number of features; None for text."""

    @property
    def label_ids(self) -> list[str]:
        """Public ids in the order of label rows."""

    @property
    def label_texts(self) -> list[str] | None:
        """Texts in the order of label rows, or None where labels have none."""

    @property
    def files(self) -> Mapping[str, Path]:
        """The splits present and the file of each."""

    def points(self, split: str) -> Iterator[Point]:
        """Stream the points of one split that is in `files`."""


class Source:
    """One data folder: its card and labels in memory, its points streamed from disk as often as asked for.

    Attributes:
        path: the folder.
        card: the facts about the data set.
        label_ids: public label ids, by label row.
        label_texts: label texts, by label row; None where labels have none.
    """

    def __init__(self, path: Path, layout: Layout) -> None:
        self.path = path
        self.label_ids = layout.label_ids
        self.label_texts = layout.label_texts
        self.card = read_card(
            path,
            input=layout.input,
            label_count=len(layout.label_ids),
            feature_count=layout.feature_count,
            has_label_texts=layout.label_texts is not None,
        )
        self._layout = layout

    def splits(self) -> tuple[str, ...]:
        """Return the splits present, of "trn", "dev" and "tst", in this order."""
        return tuple(split for split in SPLITS if split in self._layout.files)

    def points(self, split: str) -> Iterator[Point]:
        """Stream the points of a split in file order; point i is row i of the file, with or without labels.

        From "trn", the pairs of `filter_labels_train.txt` are removed; this may leave a point without labels.

        Args:
            split: one of `splits()`.

        Raises:
            DataError: while iterating, at the first line that is not what the layout promises; before the first point
                when the split is missing.
        """
        if split not in self._layout.files:
            raise DataError(self.path, None, f"a '{split}' split", f"only {', '.join(self.splits())}")
        pairs = self.filter_pairs(split)
        points = self._layout.points(split)
        count = 0
        for point in remove_pairs(points, pairs) if split == "trn" else points:
            yield point
            count += 1
        if count == 0:
            raise DataError(self._layout.files[split], None, "at least one point", "none")
        if split in FILE_NAMES:
            check_rows(self.path / FILE_NAMES[split], pairs, count)

    def filter_pairs(self, split: str) -> NDArray[np.int64]:
        """Return the (row, label) pairs (n, 2) of the split's filter file; none when there is no such file.

        Raises:
            DataError: a line is no pair, or its label is out of range.
        """
        if split not in FILE_NAMES:
            return np.empty((0, 2), dtype=np.int64)
        return read_filter(self.path / FILE_NAMES[split], self.card.label_count)


def open_named(name: str) -> Source:
    """Open what a user calls a data folder: the embedded sample by the word "sample", unless a folder has that name.

    Args:
        name: as it was typed.

    Raises:
        DataError: see `open_source`.
    """
    return open_source(sample.path() if name == SAMPLE and not Path(name).exists() else Path(name))


def open_source(path: Path) -> Source:
    """Open a data folder in any of the layouts: XC raw, XC sparse in one file a split, or in two.

    Reads labels, card and headers; points are read when they are asked for.

    Raises:
        DataError: the folder is missing, holds no layout or more than one, or its labels, card or headers are wrong.
    """
    if not path.is_dir():
        raise DataError(path, None, "a data folder", "a file" if path.exists() else "nothing")
    found = {layout: sorted(find_roles(path, layout.PATTERN).values()) for layout in LAYOUTS}
    present = [layout for layout, files in found.items() if files]
    if not present:
        expected = "'trn.json.gz' with 'lbl.json.gz', 'train.txt', or 'trn_X_Xf.txt' with 'trn_X_Y.txt'"
        raise DataError(path, None, expected, "none of them")
    if len(present) > 1:
        names = " beside ".join(f"'{found[layout][0].name}'" for layout in present)
        raise DataError(path, None, "the files of one layout", names)
    return Source(path, present[0](path))
