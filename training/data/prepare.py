"""A user's own tables made into a data folder: two passes over the input, no text held, all or nothing written.

The first pass checks every row, counts them and collects the labels; the second writes. So whatever is wrong is said
before anything is written, and labels get their rows in an order that does not depend on the order of the input.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.data.card import write_card
from training.data.files import DataError, excerpt
from training.data.json_lines import JsonLinesWriter, write_json_lines
from training.data.staging import new_folder, refuse_existing
from training.data.tables import Row, read_table


@dataclass(frozen=True)
class Prepared:
    """What `prepare` wrote.

    Attributes:
        train_points: points in `trn.json.gz`.
        test_points: points in `tst.json.gz`.
        labels: labels in `lbl.json.gz`.
    """

    train_points: int
    test_points: int
    labels: int


@dataclass(frozen=True)
class _Columns:
    """Where the parts of a point stand in the user's tables."""

    text: str
    content: str | None
    labels: str
    id: str | None
    separator: str

    def read(self, files: Sequence[Path]) -> Iterator[tuple[Row, list[str]]]:
        """Stream the rows of all files with their checked labels."""
        names = dict.fromkeys(name for name in (self.text, self.content, self.labels, self.id) if name is not None)
        for file in files:
            for row in read_table(file, list(names)):
                row.text(self.text)
                if self.content is not None:
                    row.optional_text(self.content)
                yield row, row.labels(self.labels, self.separator)

    def point(self, row: Row, position: int, label_rows: Sequence[int]) -> dict[str, object]:
        """Return the point as XC raw layout writes it; `position` is its id where no column gives one."""
        uid = str(position) if self.id is None else row.name(self.id)
        content = "" if self.content is None else row.optional_text(self.content)
        texts = {"title": row.text(self.text)} | ({"content": content} if content else {})
        return {"uid": uid, **texts, "target_ind": sorted(label_rows)}


def prepare(
    inputs: Sequence[Path],
    out: Path,
    *,
    text_column: str,
    label_column: str,
    content_column: str | None = None,
    id_column: str | None = None,
    label_texts: Path | None = None,
    label_separator: str = ",",
    test_inputs: Sequence[Path] = (),
    test_fraction: float = 0.1,
    seed: int = 0,
) -> Prepared:
    """Write tables as a data folder in XC raw layout.

    Tables are JSON lines, CSV or Parquet; see `read_table`. A row's labels are a list of strings or whole numbers, a
    string that spells such a list in JSON, or a string of labels between separators. White space around a label does
    not count, nor does naming a label twice in one row. A row may have no labels, but never an empty text.

    Args:
        inputs: the tables, at least one; the training set when `test_inputs` are given, else both sets.
        out: folder to make; it must not exist.
        text_column: column with a point's text, or with its title.
        label_column: column with its labels.
        content_column: column with what follows the title, which may be empty.
        id_column: column with its id, a string or whole number; without it the id is the row's position in the inputs.
        label_texts: table with the columns `id` and `text` that lists all labels; it sets their order, and labels
            that no row uses stay. Without it the labels are those used, in sorted order, and have no texts.
        label_separator: what stands between labels in a string that is no JSON list.
        test_inputs: tables of the test set.
        test_fraction: share of the rows drawn as the test set, above 0 and below 1; not used with `test_inputs`.
        seed: of that draw.

    Returns:
        How much was written.

    Raises:
        DataError: a table or row is wrong, a label is not among `label_texts`, or `out` exists. Nothing is written.
        ValueError: `test_fraction` or `label_separator` is no such thing.
    """
    if not 0 < test_fraction < 1:
        raise ValueError(f"test_fraction: expected a number above 0 and below 1, found {test_fraction}")
    if not label_separator:
        raise ValueError("label_separator: expected at least one character, found an empty string")
    refuse_existing(out)
    columns = _Columns(text_column, content_column, label_column, id_column, label_separator)
    texts = None if label_texts is None else _read_label_texts(label_texts)
    labels, row_count = _survey(columns, inputs, label_texts, texts)
    if test_inputs:
        test_labels, test_count = _survey(columns, test_inputs, label_texts, texts)
        labels |= test_labels
        in_test = np.arange(row_count + test_count) >= row_count
    else:
        in_test = _draw(inputs[0], row_count, test_fraction, seed)
    if texts is None and not labels:
        raise DataError(inputs[0], None, f"at least one label in column '{label_column}'", "none")
    label_lines = _label_lines(sorted(labels) if texts is None else list(texts), texts)
    return _write(out, columns.read([*inputs, *test_inputs]), columns, label_lines, in_test)


def _survey(
    columns: _Columns, files: Sequence[Path], label_texts: Path | None, texts: Mapping[str, str] | None
) -> tuple[set[str], int]:
    """Check all rows; return the labels used and the number of rows."""
    used: set[str] = set()
    count = 0
    for row, names in columns.read(files):
        columns.point(row, count, ())
        count += 1
        used.update(names)
        if texts is not None:
            for name in names:
                if name not in texts:
                    raise row.error(f"labels that '{label_texts}' lists", excerpt(name))
    if count == 0:
        raise DataError(files[0], None, "at least one row", "none")
    return used, count


def _write(
    out: Path,
    rows: Iterator[tuple[Row, list[str]]],
    columns: _Columns,
    label_lines: Sequence[Mapping[str, str]],
    in_test: NDArray[np.bool_],
) -> Prepared:
    """Write the folder; `in_test` (rows,) says which rows are test points."""
    label_rows = {line["uid"]: row for row, line in enumerate(label_lines)}
    with new_folder(out) as folder:
        write_card(folder, out.name)
        write_json_lines(folder / "lbl.json.gz", label_lines)
        with JsonLinesWriter(folder / "trn.json.gz") as train, JsonLinesWriter(folder / "tst.json.gz") as test:
            for position, (row, names) in enumerate(rows):
                writer = test if in_test[position] else train
                writer.write(columns.point(row, position, [label_rows[name] for name in names]))
    return Prepared(train.count, test.count, len(label_rows))


def _draw(file: Path, row_count: int, fraction: float, seed: int) -> NDArray[np.bool_]:
    """Return which rows (row_count,) are test rows; `random()` is the generator Python promises to keep."""
    if row_count < 2:
        raise DataError(file, None, "at least 2 rows to draw a test set from", str(row_count))
    draw = random.Random(seed).random
    keys = np.fromiter((draw() for _ in range(row_count)), np.float64, row_count)
    in_test = np.zeros(row_count, dtype=np.bool_)
    in_test[np.argsort(keys, kind="stable")[: min(max(1, round(row_count * fraction)), row_count - 1)]] = True
    return in_test


def _read_label_texts(file: Path) -> dict[str, str]:
    texts: dict[str, str] = {}
    for row in read_table(file, ("id", "text")):
        label = row.name("id")
        if label in texts:
            raise row.error("every label once", f"{excerpt(label)} again")
        texts[label] = row.text("text")
    if not texts:
        raise DataError(file, None, "at least one label", "none")
    return texts


def _label_lines(labels: Sequence[str], texts: Mapping[str, str] | None) -> list[dict[str, str]]:
    return [{"uid": label} if texts is None else {"uid": label, "title": texts[label]} for label in labels]
