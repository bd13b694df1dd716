"""The embedded sample: its bytes, its rules as far as the data itself can show them, and slices of it."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from training.data import sample
from training.data.json_lines import read_json_lines
from training.data.records import Card, DataError, Source, open_source


@pytest.fixture(scope="module")
def source() -> Source:
    return open_source(sample.path())


@pytest.fixture(scope="module")
def labels(source: Source) -> dict[str, list[NDArray[np.int32]]]:
    """Label rows of every point, by split."""
    return {split: [point.labels for point in source.points(split)] for split in source.splits()}


def uids(folder: Path, split: str) -> list[str]:
    return [str(record["uid"]) for _, record in read_json_lines(folder / f"{split}.json.gz")]


def test_checksums_hold() -> None:
    lines = (sample.path() / "SHA256SUMS").read_text().splitlines()
    stated = {name: digest for digest, name in (line.split("  ") for line in lines)}
    assert sorted(stated) == ["card.json", "lbl.json.gz", "trn.json.gz", "tst.json.gz"]
    assert stated == {name: hashlib.sha256((sample.path() / name).read_bytes()).hexdigest() for name in stated}


def test_counts_are_those_of_the_readme(source: Source, labels: dict[str, list[NDArray[np.int32]]]) -> None:
    in_training = np.unique(np.concatenate(labels["trn"])).size
    total = sum(len(rows) for split in labels.values() for rows in split)
    counts = {
        "training points": f"{len(labels['trn']):,}",
        "test points": f"{len(labels['tst']):,}",
        "labels": f"{len(source.label_ids):,} ({in_training:,} occur in training, "
        f"{len(source.label_ids) - in_training:,} only in the test set)",
        "labels per point": f"{total / sum(map(len, labels.values())):.2f}",
        "training points per label": f"{sum(map(len, labels['trn'])) / len(source.label_ids):.2f}",
    }
    readme = (sample.path() / "README.md").read_text()
    for name, value in counts.items():
        assert f"| {name} | {value} |" in readme
    for split in ("trn", "tst", "lbl"):
        digest = hashlib.sha256(gzip.decompress((sample.path() / f"{split}.json.gz").read_bytes())).hexdigest()
        assert f"{digest}  {split}.json\n" in readme


def test_the_card(source: Source) -> None:
    assert source.card == Card("debian-bookworm", "text", 28_077, None, has_label_texts=True)
    assert source.splits() == ("trn", "tst")


def test_labels_keep_the_rules(source: Source, labels: dict[str, list[NDArray[np.int32]]]) -> None:
    every = labels["trn"] + labels["tst"]
    counts = np.bincount(np.concatenate(every), minlength=len(source.label_ids))
    assert counts.min() >= 1
    assert counts.max() <= 1000
    assert all(rows.size for rows in every)
    assert source.label_ids == sorted(source.label_ids)


def test_points_keep_the_rules(source: Source, labels: dict[str, list[NDArray[np.int32]]]) -> None:
    train, test = uids(sample.path(), "trn"), uids(sample.path(), "tst")
    assert train == sorted(set(train))
    assert test == sorted(set(test))
    assert not set(train) & set(test)
    assert source.label_texts is not None
    texts = dict(zip(source.label_ids, source.label_texts, strict=True))
    for split, names in (("trn", train), ("tst", test)):
        for name, rows, point in zip(names, labels[split], source.points(split), strict=True):
            assert name not in {source.label_ids[row] for row in rows}
            assert point.text is not None
            assert point.text.startswith(f"{name} ")
            assert texts.get(name, point.text) == point.text


def test_a_slice_is_a_small_data_folder_of_the_same_facts(source: Source, tmp_path: Path) -> None:
    sample.slice_to(tmp_path / "slice")
    small = open_source(tmp_path / "slice")
    assert small.label_texts is not None
    assert small.card.name == "slice"
    used: set[str] = set()
    for split, count in (("trn", 1800), ("tst", 200)):
        names = dict.fromkeys(uids(tmp_path / "slice", split))
        assert len(names) == count
        whole = zip(uids(sample.path(), split), source.points(split), strict=True)
        expected = [
            (point.text, [source.label_ids[row] for row in point.labels]) for name, point in whole if name in names
        ]
        found = [(point.text, [small.label_ids[row] for row in point.labels]) for point in small.points(split)]
        assert found == expected
        used.update(label for _, labels in found for label in labels)
    assert sorted(used) == small.label_ids
    assert source.label_texts is not None
    texts = dict(zip(source.label_ids, source.label_texts, strict=True))
    assert small.label_texts == [texts[label] for label in small.label_ids]


def test_slices_follow_size_and_seed(tmp_path: Path) -> None:
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        sample.slice_to(tmp_path / name, points=50, seed=seed)
    one, two, three = (uids(tmp_path / name, "trn") for name in ("one", "two", "three"))
    assert len(one) == 45
    assert one == two
    assert one != three


def test_slices_refuse_what_they_cannot_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected a folder that does not exist yet"):
        sample.slice_to(tmp_path, points=50)
    with pytest.raises(ValueError, match="points: expected 1 to 3957 of the sample's 'tst' split, found 0"):
        sample.slice_to(tmp_path / "out", points=9)
    with pytest.raises(ValueError, match="points: expected 1 to 3957 of the sample's 'tst' split, found 5000"):
        sample.slice_to(tmp_path / "out", points=50_000)
