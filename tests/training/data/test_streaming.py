"""Reading holds a line at a time: peak memory stays far below the size of the data, whatever the layout."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from training.data.prepare import prepare
from training.data.records import open_source

FILE_BYTES = 3_000_000
PEAK_BYTES = 400_000  # a read buffer of 128 KiB and what one line becomes


def write_raw(folder: Path) -> None:
    (folder / "lbl.json").write_text('{"uid": "a", "title": "A"}\n')
    line = '{"uid": "p", "title": "' + "word " * 200 + '", "target_ind": [0]}\n'
    (folder / "trn.json").write_text(line * (FILE_BYTES // len(line)))


def write_sparse(folder: Path) -> None:
    line = "0 " + " ".join(f"{index}:0.5" for index in range(150)) + "\n"
    rows = FILE_BYTES // len(line)
    (folder / "train.txt").write_text(f"{rows} 150 1\n" + line * rows)


def write_pairs(folder: Path) -> None:
    line = " ".join(f"{index}:0.5" for index in range(150)) + "\n"
    rows = FILE_BYTES // len(line)
    (folder / "trn_X_Xf.txt").write_text(f"{rows} 150\n" + line * rows)
    (folder / "trn_X_Y.txt").write_text(f"{rows} 1\n" + "0:1\n" * rows)


@pytest.mark.parametrize("write", [write_raw, write_sparse, write_pairs])
def test_points_are_streamed(tmp_path: Path, write: Callable[[Path], None]) -> None:
    write(tmp_path)
    source = open_source(tmp_path)
    peak_bytes = peak_of(lambda: sum(1 for _ in source.points("trn")))
    assert peak_bytes < PEAK_BYTES


def test_prepare_holds_no_text(tmp_path: Path) -> None:
    line = '{"text": "' + "word " * 200 + '", "labels": ["a", "b"]}\n'
    file = tmp_path / "input.jsonl"
    file.write_text(line * (FILE_BYTES // len(line)))
    peak_bytes = peak_of(lambda: prepare([file], tmp_path / "out", text_column="text", label_column="labels"))
    assert peak_bytes < 3 * PEAK_BYTES  # two gzip compressors beside the reader


def peak_of(action: Callable[[], object]) -> int:
    """The most bytes that Python and NumPy held during an action."""
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
