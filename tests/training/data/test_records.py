"""Folders: which layout they hold, what the card says, which splits and filters apply, and what their texts are."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from tests.training.data.datasets import write
from training.data.records import DataError, open_source

LABELS = (
    '{"uid": "a", "title": "first"}\n{"uid": "b", "title": "second", "content": "more"}\n{"uid": "c", "title": ""}\n'
)
POINTS = "".join(
    json.dumps({"uid": str(row), "title": f"point {row}", "content": "", "target_ind": labels}) + "\n"
    for row, labels in enumerate([[0, 1], [1], [2, 0, 1]])
)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """A folder of three points, the same for training and test."""
    folder = tmp_path / "three"
    folder.mkdir()
    for split in ("trn", "tst"):
        write(folder / f"{split}.json.gz", POINTS)
    write(folder / "lbl.json.gz", LABELS)
    return folder


def refusal(folder: Path, split: str = "trn") -> str:
    with pytest.raises(DataError) as caught:
        list(open_source(folder).points(split))
    return str(caught.value)


def test_splits_are_those_present_in_a_fixed_order(raw: Path) -> None:
    assert open_source(raw).splits() == ("trn", "tst")
    write(raw / "dev.jsonl", POINTS)
    assert open_source(raw).splits() == ("trn", "dev", "tst")


def test_a_split_that_is_not_there_is_refused(raw: Path) -> None:
    assert refusal(raw, "dev") == f"{raw}: expected a 'dev' split, found only trn, tst"


def test_points_can_be_streamed_again(raw: Path) -> None:
    source = open_source(raw)
    assert [point.text for point in source.points("trn")] == [point.text for point in source.points("trn")]


def test_text_is_title_and_content_unless_that_is_empty(tmp_path: Path) -> None:
    write(tmp_path / "lbl.json", LABELS)
    titles = [{"content": "and more"}, {"content": ""}, {}]
    records = ({"uid": "p", "title": "title", "target_ind": []} | content for content in titles)
    write(tmp_path / "tst.json", "".join(json.dumps(record) + "\n" for record in records))
    source = open_source(tmp_path)
    assert [point.text for point in source.points("tst")] == ["title\nand more", "title", "title"]
    assert source.label_texts == ["first", "second\nmore", ""]


def test_a_title_is_the_first_line_whatever_stands_in_it(tmp_path: Path) -> None:
    write(tmp_path / "lbl.json", LABELS)
    title = " of\ttwo\n\nlines \n"
    records = [
        {"uid": "p", "title": title, "content": " and\nmore", "target_ind": []},
        {"uid": "q", "title": title, "target_ind": []},
        {"uid": "r", "title": "", "content": "no title", "target_ind": []},
    ]
    write(tmp_path / "tst.json", "".join(json.dumps(record) + "\n" for record in records))
    texts = [point.text for point in open_source(tmp_path).points("tst")]
    assert texts == ["of two lines\n and\nmore", title, "\nno title"]


def test_labels_without_titles_have_no_texts(raw: Path) -> None:
    write(raw / "lbl.json.gz", '{"uid": "a"}\n{"uid": "b"}\n{"uid": "c"}\n')
    source = open_source(raw)
    assert source.label_texts is None
    assert not source.card.has_label_texts


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(raw: Path) -> None:
    write(raw / "trn.json.gz", "\ufeff" + POINTS.replace("\n", "\r\n"))
    assert [point.text for point in open_source(raw).points("trn")] == ["point 0", "point 1", "point 2"]


def test_only_line_feeds_end_lines(raw: Path) -> None:
    text = "one\u2028two\u0085three"
    write(raw / "trn.json.gz", json.dumps({"uid": "p", "title": text, "target_ind": []}, ensure_ascii=False) + "\n")
    assert [point.text for point in open_source(raw).points("trn")] == [text]


def test_label_names_are_ids(tmp_path: Path) -> None:
    write(tmp_path / "train.txt", "1 4 2\n1 0:1\n")
    write(tmp_path / "labels.txt", "first label\nsecond\n")
    source = open_source(tmp_path)
    assert source.label_ids == ["first label", "second"]
    assert source.label_texts is None


def test_empty_rows_and_empty_lines_after_them_are_read(tmp_path: Path) -> None:
    write(tmp_path / "train.txt", "3 4 2\n0,1 3:0.5  1:2\n\n 0:1\n\n\n")
    points = list(open_source(tmp_path).points("trn"))
    assert [point.labels.tolist() for point in points] == [[0, 1], [], []]
    assert [point.indices.tolist() for point in points if point.indices is not None] == [[1, 3], [], [0]]


def test_the_card_says_what_the_folder_does_not(raw: Path) -> None:
    assert open_source(raw).card.name == "three"
    write(raw / "card.json", '{"name": "named", "propensity_a": 0.6, "propensity_b": 2.6}')
    card = open_source(raw).card
    assert (card.name, card.propensity_a, card.propensity_b) == ("named", 0.6, 2.6)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            '{"name": "x",\n "propensity": 1}',
            ": expected the keys name, propensity_a, propensity_b, found 'propensity'",
        ),
        (
            '{"name": "x",\n3}',
            ", line 2: expected a JSON object, found broken JSON (Expecting property name enclosed in",
        ),
        ("[1]", ", line 1: expected a JSON object, found [1]"),
        ('{"name": ""}', ": expected a non-empty string as 'name', found ''"),
        ('{"name": 3}', ": expected a non-empty string as 'name', found 3"),
        ('{"propensity_a": 0}', ": expected a finite number above 0 as 'propensity_a', found 0"),
        ('{"propensity_b": "1.5"}', ": expected a finite number above 0 as 'propensity_b', found '1.5'"),
        ('{"propensity_b": NaN}', ": expected a finite number above 0 as 'propensity_b', found nan"),
        ('{"propensity_b": true}', ": expected a finite number above 0 as 'propensity_b', found True"),
    ],
)
def test_a_wrong_card_is_refused(raw: Path, text: str, sentence: str) -> None:
    write(raw / "card.json", text)
    assert refusal(raw).startswith(f"{raw / 'card.json'}{sentence}")


def test_filters_leave_training_targets_and_are_handed_to_the_evaluator(raw: Path) -> None:
    write(raw / "filter_labels_train.txt", "2 1\n0 0\n2 0\n1 0\n")
    write(raw / "filter_labels_test.txt", "0 1\n2 2\n")
    source = open_source(raw)
    assert [point.labels.tolist() for point in source.points("trn")] == [[1], [1], [2]]
    assert [point.relevances.tolist() for point in source.points("trn")] == [[1.0], [1.0], [1.0]]
    assert [point.labels.tolist() for point in source.points("tst")] == [[0, 1], [1], [0, 1, 2]]
    assert_array_equal(source.filter_pairs("trn"), np.array([[2, 1], [0, 0], [2, 0], [1, 0]], dtype=np.int64))
    assert_array_equal(source.filter_pairs("tst"), np.array([[0, 1], [2, 2]], dtype=np.int64))


def test_filters_may_be_empty_or_absent(raw: Path) -> None:
    write(raw / "filter_labels_train.txt", "")
    source = open_source(raw)
    for split in ("trn", "dev", "tst"):
        pairs = source.filter_pairs(split)
        assert pairs.shape == (0, 2)
        assert pairs.dtype == np.int64


@pytest.mark.parametrize(("split", "name"), [("trn", "filter_labels_train.txt"), ("tst", "filter_labels_test.txt")])
@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("0 0\n1\n", ", line 2: expected a point's row number and a label's, found '1'"),
        ("0 0 0\n", ", line 1: expected a point's row number and a label's, found '0 0 0'"),
        ("0 x\n", ", line 1: expected a point's row number and a label's, found '0 x'"),
        ("0 9" + 20 * "9", ", line 1: expected a point's row number and a label's, found '0 9"),
        ("0 3\n", ", line 1: expected a row of at least 0 and a label row from 0 to 2, found '0 3'"),
        ("-1 0\n", ", line 1: expected a row of at least 0 and a label row from 0 to 2, found '-1 0'"),
        ("0 0\n3 0\n", ", line 2: expected rows from 0 to 2, found 3"),
    ],
)
def test_a_wrong_filter_is_refused(raw: Path, split: str, name: str, text: str, sentence: str) -> None:
    write(raw / name, text)
    assert refusal(raw, split).startswith(f"{raw / name}{sentence}")


def test_filter_files_are_not_taken_for_points(tmp_path: Path) -> None:
    write(tmp_path / "train.txt", "1 4 2\n1,0 0:1\n")
    write(tmp_path / "filter_labels_train.txt", "0 0\n")
    assert [point.labels.tolist() for point in open_source(tmp_path).points("trn")] == [[1]]


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (
            [],
            "expected 'trn.json.gz' with 'lbl.json.gz', 'train.txt', or 'trn_X_Xf.txt' with 'trn_X_Y.txt', found none",
        ),
        (["README.md", "labels.txt"], "expected 'trn.json.gz' with 'lbl.json.gz', 'train.txt', or "),
        (["trn.json", "train.txt"], "expected the files of one layout, found 'trn.json' beside 'train.txt'"),
        (["lbl.json", "tst_X_Y.txt"], "expected the files of one layout, found 'lbl.json' beside 'tst_X_Y.txt'"),
        (["trn.json", "trn.json.gz", "lbl.json"], "expected one 'trn' file, found 'trn.json' and 'trn.json.gz'"),
        (["train.txt", "a_train.txt.gz"], "expected one 'train' file, found 'a_train.txt.gz' and 'train.txt'"),
        (["trn.json"], "expected a label file 'lbl.json.gz' beside the points, found none"),
        (["lbl.json"], "expected points beside 'lbl.json': 'trn.json.gz' or 'tst.json.gz', found none"),
        (["trn_X_Xf.txt"], "expected 'trn_X_Xf.txt' and 'trn_X_Y.txt' together, found only one of the two"),
        (["tst_X_Y.txt"], "expected 'tst_X_Xf.txt' and 'tst_X_Y.txt' together, found only one of the two"),
    ],
)
def test_a_folder_that_is_not_one_layout_is_refused(tmp_path: Path, names: list[str], sentence: str) -> None:
    for name in names:
        write(tmp_path / name, "")
    assert refusal(tmp_path).startswith(f"{tmp_path}: {sentence}")


def test_a_path_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "absent") == f"{tmp_path / 'absent'}: expected a data folder, found nothing"
    write(tmp_path / "file", "")
    assert refusal(tmp_path / "file") == f"{tmp_path / 'file'}: expected a data folder, found a file"
