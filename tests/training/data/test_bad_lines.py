"""Every kind of bad line is refused with a sentence that says where it is, what was expected and what was found."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from tests.training.data.datasets import write
from training.data.records import DataError, open_source

GOOD = '{"uid": "p", "title": "t", "target_ind": [0]}\n'
LABELS = '{"uid": "a", "title": "A"}\n{"uid": "b", "title": "B"}\n'


def refusal(folder: Path) -> DataError:
    with pytest.raises(DataError) as caught:
        list(open_source(folder).points("trn"))
    return caught.value


def point(targets: str) -> str:
    return '{"uid": "p", "title": "t", ' + targets + "}"


@pytest.mark.parametrize(
    ("line", "expected", "found"),
    [
        (
            '{"uid": "p", "title"',
            "a JSON object",
            '\'{"uid": "p", "title"\' (Expecting \':\' delimiter: line 1 column 21',
        ),
        ("", "a JSON object", "an empty line"),
        ("[1]", "a JSON object", "[1]"),
        ("{} {}", "a JSON object", "'{} {}' (Extra data: line 1 column 4 (char 3))"),
        ("[" * 100_000, "a JSON object", "'[[[[[[[[[[[[[["),
        ('{"title": "t", "target_ind": [0]}', "a field 'uid'", "the fields 'title', 'target_ind'"),
        ("{}", "a field 'uid'", "the fields none"),
        ('{"uid": "p", "target_ind": [0]}', "a field 'title'", "the fields 'uid', 'target_ind'"),
        ('{"uid": "p", "title": "t"}', "a field 'target_ind'", "the fields 'uid', 'title'"),
        ('{"uid": 7, "title": "t", "target_ind": [0]}', "a string as 'uid'", "7"),
        ('{"uid": "p", "title": null, "target_ind": [0]}', "a string as 'title'", "None"),
        ('{"uid": "p", "title": "t", "content": 1, "target_ind": [0]}', "a string as 'content'", "1"),
        (
            '{"uid": "p", "title": "\\ud800", "target_ind": [0]}',
            "Unicode text",
            "half a surrogate pair (\\ud800 to \\udfff)",
        ),
        (point('"target_ind": 0'), "a list of label rows as 'target_ind'", "0"),
        (point('"target_ind": ["0"]'), "a list of label rows as 'target_ind'", "['0']"),
        (point('"target_ind": [true]'), "a list of label rows as 'target_ind'", "[True]"),
        (point('"target_ind": [1.0]'), "a list of label rows as 'target_ind'", "[1.0]"),
        (point('"target_ind": [0, 2]'), "label rows from 0 to 1", "2"),
        (point('"target_ind": [-1]'), "label rows from 0 to 1", "-1"),
        (point('"target_ind": [1, 0, 1]'), "every label once in a point", "label 1 more than once"),
        (point('"target_ind": [0], "target_rel": 1'), "a list of numbers as 'target_rel'", "1"),
        (point('"target_ind": [0], "target_rel": null'), "a list of numbers as 'target_rel'", "None"),
        (point('"target_ind": [0], "target_rel": ["1"]'), "a list of numbers as 'target_rel'", "['1']"),
        (point('"target_ind": [0], "target_rel": [1, 1]'), "as many relevances as labels (1)", "2"),
        (point('"target_ind": [0], "target_rel": []'), "as many relevances as labels (1)", "0"),
        (point('"target_ind": [0], "target_rel": [NaN]'), "finite relevances above 0", "nan"),
        (point('"target_ind": [0], "target_rel": [Infinity]'), "finite relevances above 0", "inf"),
        (point('"target_ind": [0], "target_rel": [1e39]'), "finite relevances above 0", "1e+39"),
        (point('"target_ind": [0], "target_rel": [-0.5]'), "finite relevances above 0", "-0.5"),
        (point('"target_ind": [0], "target_rel": [0]'), "finite relevances above 0", "0"),
    ],
)
def test_raw_points(tmp_path: Path, line: str, expected: str, found: str) -> None:
    write(tmp_path / "lbl.json.gz", LABELS)
    write(tmp_path / "trn.json.gz", GOOD + line + "\n")
    error = refusal(tmp_path)
    assert (error.file, error.line, error.expected) == (tmp_path / "trn.json.gz", 2, expected)
    assert error.found.startswith(found)
    assert str(error) == f"{error.file}, line 2: expected {expected}, found {error.found}"


@pytest.mark.parametrize(
    ("text", "line", "expected", "found"),
    [
        ("", 1, "at least one label", "an empty file"),
        (LABELS + '{"uid": "a", "title": "C"}\n', 3, "every label 'uid' once", "'a', which line 1 has too"),
        (LABELS + '{"uid": "", "title": "C"}\n', 3, "a non-empty 'uid'", "''"),
        (LABELS + '{"uid": 3, "title": "C"}\n', 3, "a string as 'uid'", "3"),
        (LABELS + '{"uid": "c"}\n', 3, "a field 'title'", "the fields 'uid'"),
        (LABELS + "oops\n", 3, "a JSON object", "'oops' (Expecting value: line 1 column 1 (char 0))"),
        ('{"uid": "a"}\n{"uid": "b", "title": "B"}\n', 2, "no 'title', as the labels above have none", "'B'"),
    ],
)
def test_raw_labels(tmp_path: Path, text: str, line: int, expected: str, found: str) -> None:
    write(tmp_path / "lbl.json.gz", text)
    write(tmp_path / "trn.json.gz", GOOD)
    error = refusal(tmp_path)
    assert (error.line, error.expected, error.found) == (line, expected, found)


@pytest.mark.parametrize(
    ("row", "expected", "found"),
    [
        ("0:1 1:1", "label rows separated by commas, or a leading space where there are none", "'0:1'"),
        ("a 1:1", "label rows separated by commas, or a leading space where there are none", "'a'"),
        ("1,,0 1:1", "label rows separated by commas, or a leading space where there are none", "'1,,0'"),
        ("-1 1:1", "label rows separated by commas, or a leading space where there are none", "'-1'"),
        ("9" * 5000, "label rows separated by commas, or a leading space where there are none", "'9999"),
        ("2 1:1", "label rows from 0 to 1", "2"),
        ("1,0,1 1:1", "every label once in a point", "label 1 more than once"),
        ("1 4:1", "feature indices from 0 to 3", "4"),
        ("1 -2:1", "feature indices from 0 to 3", "-2"),
        ("1 99999999999999999999:1", "index:value with finite numbers", "'99999999999999999999:1'"),
        ("1 3:1 0:1 3:2", "every feature once in a row", "feature 3 more than once"),
        ("1 3:1 0", "index:value with finite numbers", "'0'"),
        ("1 3:1 0:", "index:value with finite numbers", "'0:'"),
        ("1 3:1:2 0", "index:value with finite numbers", "'3:1:2'"),
        ("1 1.0:1", "index:value with finite numbers", "'1.0:1'"),
        ("1 1_0:1", "index:value with finite numbers", "'1_0:1'"),
        ("1 1:1e", "index:value with finite numbers", "'1:1e'"),
        ("1 1:nan", "index:value with finite numbers", "'1:nan'"),
        ("1 1:-inf", "index:value with finite numbers", "'1:-inf'"),
        ("1 1:é", "index:value with finite numbers", "'1:é'"),
        ("1 1:1e300", "feature values that fit into float32", "1e+300"),
        ("1 1:1e999", "feature values that fit into float32", "inf"),
    ],
)
def test_sparse_rows(tmp_path: Path, row: str, expected: str, found: str) -> None:
    write(tmp_path / "train.txt", f"2 4 2\n0 1:0.5 2:1e-3\n{row}\n")
    error = refusal(tmp_path)
    assert (error.file, error.line, error.expected) == (tmp_path / "train.txt", 3, expected)
    assert error.found.startswith(found)


@pytest.mark.parametrize(
    ("text", "line", "expected", "found"),
    [
        ("", 1, "a header with the numbers of points, features, labels", "an empty file"),
        ("1 4\n", 1, "a header with the numbers of points, features, labels", "'1 4'"),
        ("1 4 -2\n", 1, "a header with the numbers of points, features, labels", "'1 4 -2'"),
        ("1 4 0\n", 1, "at least one of the labels", "0"),
        ("1 0 2\n", 1, "at least one of the features", "0"),
        ("0 4 2\n", None, "at least one point", "none"),
        ("2 4 2\n0 1:1\n", None, "2 rows, as the header says", "1 rows"),
        ("1 4 2\n0 1:1\n0 1:1\n", 3, "no more than 1 rows, as the header says", "another row"),
    ],
)
def test_sparse_headers(tmp_path: Path, text: str, line: int | None, expected: str, found: str) -> None:
    write(tmp_path / "train.txt", text)
    error = refusal(tmp_path)
    assert (error.line, error.expected, error.found) == (line, expected, found)


@pytest.mark.parametrize(
    ("header", "expected", "found"),
    [("1 5 2", "4 features, as 'test.txt' has", "5"), ("1 4 3", "2 labels, as 'test.txt' has", "3")],
)
def test_sparse_headers_that_disagree(tmp_path: Path, header: str, expected: str, found: str) -> None:
    write(tmp_path / "test.txt", "1 4 2\n0 1:1\n")
    write(tmp_path / "train.txt", f"{header}\n0 1:1\n")
    error = refusal(tmp_path)
    assert (error.file.name, error.line, error.expected, error.found) == ("train.txt", 1, expected, found)


@pytest.mark.parametrize(
    ("text", "line", "expected", "found"),
    [
        ("a\n", None, "2 label names, as the header of the points says", "1"),
        ("a\nb\nc\n", None, "2 label names, as the header of the points says", "3"),
        ("a\na\n", 2, "every label name once", "'a', which line 1 has too"),
        ("a\n \n", 2, "a label name", "an empty line"),
    ],
)
def test_label_names(tmp_path: Path, text: str, line: int | None, expected: str, found: str) -> None:
    write(tmp_path / "train.txt", "1 4 2\n0 1:1\n")
    write(tmp_path / "labels.txt", text)
    error = refusal(tmp_path)
    assert (error.file.name, error.line, error.expected, error.found) == ("labels.txt", line, expected, found)


@pytest.mark.parametrize(
    ("features", "labels", "file", "line", "expected", "found"),
    [
        ("1 4\n0:1\n", "2 2\n0:1\n0:1\n", "trn_X_Y.txt", 1, "1 points, as 'trn_X_Xf.txt' has", "2"),
        ("2 4\n0:1\n", "2 2\n0:1\n0:1\n", "trn_X_Xf.txt", None, "2 rows, as the header says", "1 rows"),
        ("2 4\n0:1\n0:1\n", "2 2\n0:1\n", "trn_X_Y.txt", None, "2 rows, as the header says", "1 rows"),
        ("1 4\n4:1\n", "1 2\n0:1\n", "trn_X_Xf.txt", 2, "feature indices from 0 to 3", "4"),
        ("1 4\n0:1\n", "1 2\n2:1\n", "trn_X_Y.txt", 2, "label rows from 0 to 1", "2"),
        ("1 4\n0:1\n", "1 2\n0:1 0:2\n", "trn_X_Y.txt", 2, "every label once in a point", "label 0 more than once"),
        ("1 4\n0:1\n", "1 2\n0\n", "trn_X_Y.txt", 2, "index:value with finite numbers", "'0'"),
        ("1 4\n0:1\n", "1 2\n0:nan\n", "trn_X_Y.txt", 2, "index:value with finite numbers", "'0:nan'"),
        ("1 4\n0:1\n", "1 2\n0:-1\n", "trn_X_Y.txt", 2, "finite relevances above 0", "-1.0"),
        ("1 4 2\n0:1\n", "1 2\n0:1\n", "trn_X_Xf.txt", 1, "a header with the numbers of points, features", "'1 4 2'"),
    ],
)
def test_official_pairs(
    tmp_path: Path, features: str, labels: str, file: str, line: int | None, expected: str, found: str
) -> None:
    write(tmp_path / "trn_X_Xf.txt", features)
    write(tmp_path / "trn_X_Y.txt", labels)
    error = refusal(tmp_path)
    assert (error.file.name, error.line, error.expected, error.found) == (file, line, expected, found)


@pytest.mark.parametrize(("name", "other"), [("trn.json.gz", GOOD), ("lbl.json.gz", LABELS)])
def test_truncated_gzip(tmp_path: Path, name: str, other: str) -> None:
    write(tmp_path / "lbl.json.gz", LABELS)
    write(tmp_path / "trn.json.gz", GOOD)
    (tmp_path / name).write_bytes(gzip.compress(other.encode())[:-9])
    error = refusal(tmp_path)
    assert (error.file.name, error.expected) == (name, "complete gzip data")
    assert "ended before the end-of-stream marker" in error.found


def test_damaged_gzip(tmp_path: Path) -> None:
    write(tmp_path / "lbl.json.gz", LABELS)
    data = bytearray(gzip.compress(GOOD.encode()))
    data[-6] ^= 1
    (tmp_path / "trn.json.gz").write_bytes(data)
    error = refusal(tmp_path)
    assert error.expected == "complete gzip data"
    assert error.found.startswith("CRC check failed")


def test_gzip_by_name_only(tmp_path: Path) -> None:
    write(tmp_path / "lbl.json.gz", LABELS)
    (tmp_path / "trn.json.gz").write_text(GOOD)
    assert str(refusal(tmp_path)) == (
        f"{tmp_path / 'trn.json.gz'}, line 1: expected complete gzip data, found Not a gzipped file (b'{{\"')"
    )


def test_a_folder_in_a_files_place(tmp_path: Path) -> None:
    write(tmp_path / "lbl.json", LABELS)
    (tmp_path / "trn.json").mkdir()
    error = refusal(tmp_path)
    assert error.expected == "a readable file"
    assert "Is a directory" in error.found


def test_not_utf8(tmp_path: Path) -> None:
    write(tmp_path / "lbl.json", LABELS)
    (tmp_path / "trn.json").write_bytes(GOOD.encode() + GOOD.replace('"t"', '"caf\u00e9"').encode("latin-1"))
    assert str(refusal(tmp_path)) == f"{tmp_path / 'trn.json'}, line 2: expected UTF-8 text, found byte 0xe9"


def test_no_points(tmp_path: Path) -> None:
    write(tmp_path / "lbl.json", LABELS)
    write(tmp_path / "trn.json", "")
    assert str(refusal(tmp_path)) == f"{tmp_path / 'trn.json'}: expected at least one point, found none"


def test_long_values_are_shortened(tmp_path: Path) -> None:
    write(tmp_path / "lbl.json", LABELS)
    write(tmp_path / "trn.json", point(f'"target_ind": "{"9" * 10_000}"') + "\n")
    assert len(refusal(tmp_path).found) < 100
