"""The sample that travels with the project: Debian packages and the packages they ask for; see README.md here."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import cast

from training.data.card import write_card
from training.data.json_lines import Record, read_json_lines, write_json_lines
from training.data.staging import new_folder


def path() -> Path:
    """Return the folder of the sample, a data folder in XC raw layout."""
    return Path(__file__).parent


def slice_to(out: Path, *, points: int = 2000, seed: int = 0) -> None:
    """Write a small data folder cut from the sample, for tests that train something in seconds.

    Args:
        out: folder to make.
        points: how many points to draw, a tenth of them from the test set.
        seed: of the draw.

    Raises:
        DataError: `out` exists.
        ValueError: the sample has not that many points.
    """
    draw = random.Random(seed)
    drawn = {"tst": _draw("tst", points // 10, draw), "trn": _draw("trn", points - points // 10, draw)}
    used = sorted({label for records in drawn.values() for record in records for label in _labels(record)})
    new_rows = {label: row for row, label in enumerate(used)}
    with new_folder(out) as folder:
        write_card(folder, out.name)
        labels = (record for line, record in read_json_lines(path() / "lbl.json.gz") if line - 1 in new_rows)
        write_json_lines(folder / "lbl.json.gz", labels)
        for split, records in drawn.items():
            write_json_lines(folder / f"{split}.json.gz", _renumbered(records, new_rows))


def _draw(split: str, count: int, draw: random.Random) -> list[Record]:
    records = [record for _, record in read_json_lines(path() / f"{split}.json.gz")]
    if not 0 < count <= len(records):
        raise ValueError(f"points: expected 1 to {len(records)} of the sample's '{split}' split, found {count}")
    return [records[row] for row in sorted(draw.sample(range(len(records)), count))]


def _renumbered(records: list[Record], new_rows: dict[int, int]) -> Iterator[Record]:
    for record in records:
        yield {**record, "target_ind": [new_rows[label] for label in _labels(record)]}


def _labels(record: Record) -> list[int]:
    return cast("list[int]", record["target_ind"])  # the sample itself is tested
