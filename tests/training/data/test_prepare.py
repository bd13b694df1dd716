"""`prepare`: every kind of table becomes the same data folder, and a bad row leaves nothing behind."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.data.prepare import Prepared, prepare
from training.data.records import DataError, open_source

Rows = list[tuple[str, list[str]]]

ROWS: Rows = [(f"text {row}", [f"label {row % 7}", f"label {row % 3}"] if row else []) for row in range(20)]


def write_jsonl(file: Path, rows: Rows) -> Path:
    file.write_text("".join(json.dumps({"text": text, "labels": labels}) + "\n" for text, labels in rows))
    return file


def write_csv(file: Path, rows: Rows) -> Path:
    with file.open("w", newline="", encoding="utf-8-sig") as stream:
        writer = csv.writer(stream)
        writer.writerow(["text", "labels"])
        writer.writerows((text, json.dumps(labels)) for text, labels in rows)
    return file


def write_parquet(file: Path, rows: Rows) -> Path:
    labels = pa.array([labels for _, labels in rows], pa.list_(pa.string()))
    pq.write_table(pa.table({"text": [text for text, _ in rows], "labels": labels}), file)
    return file


def run(inputs: Sequence[Path], out: Path, **options: Any) -> Prepared:
    return prepare(inputs, out, **{"text_column": "text", "label_column": "labels"} | options)


def read(folder: Path, split: str) -> Rows:
    """A split as texts with label ids."""
    source = open_source(folder)
    return [(point.text or "", [source.label_ids[row] for row in point.labels]) for point in source.points(split)]


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


# No carriage returns: the line ends inside a CSV field become line feeds.
characters = st.characters(exclude_categories=["Cs"], exclude_characters="\r")
texts = st.text(characters, min_size=1, max_size=8).filter(str.strip)
names = st.text(characters, min_size=1, max_size=3).filter(str.strip).map(str.strip)
rows_of_tables = st.lists(st.tuples(texts, st.lists(names, unique=True, max_size=3)), min_size=2, max_size=8)


@given(rows_of_tables.filter(lambda rows: any(labels for _, labels in rows)), st.integers(0, 99))
def test_any_table_becomes_the_same_folder(tmp_path_factory: pytest.TempPathFactory, rows: Rows, seed: int) -> None:
    folder = tmp_path_factory.mktemp("tables")
    files = [
        write_jsonl(folder / "a.jsonl", rows),
        write_csv(folder / "a.csv", rows),
        write_parquet(folder / "a.parquet", rows),
    ]
    for file in files:
        out = folder / file.suffix[1:] / "out"
        count = run([file], out, seed=seed)
        assert count.train_points + count.test_points == len(rows)
        read_back = sorted(read(out, "trn") + read(out, "tst"))
        assert read_back == sorted((text, sorted(labels)) for text, labels in rows)
        assert contents(out) == contents(folder / "jsonl" / "out")


def test_the_draw_is_seeded_and_exact(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "a.jsonl", ROWS)
    assert run([file], tmp_path / "one", test_fraction=0.25) == Prepared(15, 5, 7)
    run([file], tmp_path / "two", test_fraction=0.25)
    run([file], tmp_path / "three", test_fraction=0.25, seed=1)
    card = json.loads((tmp_path / "two" / "card.json").read_text())
    assert card == {"name": "two", "propensity_a": 0.55, "propensity_b": 1.5}
    for split in ("trn", "tst"):
        assert read(tmp_path / "one", split) == read(tmp_path / "two", split)
        assert read(tmp_path / "one", split) != read(tmp_path / "three", split)
    assert sorted(read(tmp_path / "one", "trn") + read(tmp_path / "one", "tst")) == sorted(
        (text, sorted(set(labels))) for text, labels in ROWS
    )


def test_a_draw_leaves_both_sides_something(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "a.jsonl", ROWS[1:3])
    assert run([file], tmp_path / "few", test_fraction=0.01) == Prepared(1, 1, 2)
    assert run([file], tmp_path / "most", test_fraction=0.99) == Prepared(1, 1, 2)


def test_content_follows_the_title_on_a_line_of_its_own(tmp_path: Path) -> None:
    rows = [("red  house\nby a river", "It burnt."), ("blue", ""), ("green", None), ("grey", " \n")]
    lines = (json.dumps({"text": text, "more": more, "labels": ["a"]}) + "\n" for text, more in rows)
    file = tmp_path / "a.jsonl"
    file.write_text("".join(lines))
    run([file], tmp_path / "out", content_column="more", test_inputs=[file])
    assert [text for text, _ in read(tmp_path / "out", "trn")] == [
        "red house by a river\nIt burnt.",
        "blue",
        "green",
        "grey",
    ]
    file.write_text('{"text": "red", "more": 7, "labels": ["a"]}\n' * 2)
    with pytest.raises(DataError, match=r"a\.jsonl.* line 1: expected text or nothing in column 'more', found 7"):
        run([file], tmp_path / "other", content_column="more")


def test_a_given_split_is_kept(tmp_path: Path) -> None:
    inputs = [write_jsonl(tmp_path / "a.jsonl", ROWS[1:4]), write_csv(tmp_path / "b.csv", ROWS[4:6])]
    test = write_parquet(tmp_path / "test.parquet", ROWS[6:9])
    assert run(inputs, tmp_path / "out", test_inputs=[test]) == Prepared(5, 3, 7)
    assert [text for text, _ in read(tmp_path / "out", "trn")] == [f"text {row}" for row in range(1, 6)]
    assert [text for text, _ in read(tmp_path / "out", "tst")] == [f"text {row}" for row in range(6, 9)]


def test_ids_come_from_their_column_or_the_position(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"text": "a", "labels": "x", "key": "first"}\n{"text": "b", "labels": "y", "key": 2}\n')
    for out, options, expected in (("given", {"id_column": "key"}, ["first", "2"]), ("counted", {}, ["0", "1"])):
        run([file], tmp_path / out, test_inputs=[file], **options)
        with gzip.open(tmp_path / out / "trn.json.gz") as stream:
            assert [json.loads(line)["uid"] for line in stream] == expected
    with gzip.open(tmp_path / "counted" / "tst.json.gz") as stream:
        assert [json.loads(line)["uid"] for line in stream] == ["2", "3"]


@pytest.mark.parametrize(
    ("labels", "separator", "expected"),
    [
        ("a, b ,a", ",", ["a", "b"]),
        ("a; b,c;", ";", ["a", "b,c"]),
        ('["a", "b, c", 7]', ",", ["7", "a", "b, c"]),
        ("", ",", []),
        ([], ",", []),
        (["b", 3, "b"], ",", ["3", "b"]),
        (3, ",", ["3"]),
        ("[a], b", ",", ["[a]", "b"]),
    ],
)
def test_ways_to_write_labels(tmp_path: Path, labels: object, separator: str, expected: list[str]) -> None:
    file = tmp_path / "a.jsonl"
    records = [{"text": "t", "labels": labels}, {"text": "u", "labels": ["other"]}]
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    run([file], tmp_path / "out", label_separator=separator, test_inputs=[file])
    assert read(tmp_path / "out", "trn") == [("t", expected), ("u", ["other"])]


def test_label_texts_set_order_and_texts_and_keep_unused_labels(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "a.jsonl", [("t", ["b", "a"]), ("u", ["a"])])
    texts = tmp_path / "labels.csv"
    texts.write_text("text,id\nthe b,b\nunused,z\nthe a,a\n")
    run([file], tmp_path / "out", label_texts=texts, test_inputs=[file])
    source = open_source(tmp_path / "out")
    assert source.label_ids == ["b", "z", "a"]
    assert source.label_texts == ["the b", "unused", "the a"]


def test_without_label_texts_labels_are_sorted_and_have_none(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "a.jsonl", [("t", ["b", "a"]), ("u", ["c"])])
    run([file], tmp_path / "out", test_inputs=[file])
    source = open_source(tmp_path / "out")
    assert source.label_ids == ["a", "b", "c"]
    assert source.label_texts is None


def test_a_csv_field_may_be_long_and_span_lines(tmp_path: Path) -> None:
    limit = csv.field_size_limit()
    text = "word, \n" * 30_000
    file = write_csv(tmp_path / "a.csv", [(text, ["a"]), ("u", ["b"])])
    run([file], tmp_path / "out", test_inputs=[file])
    assert read(tmp_path / "out", "trn")[0] == (text, ["a"])
    assert csv.field_size_limit() == limit


def broken_parquet(file: Path) -> None:
    write_parquet(file, ROWS)
    file.write_bytes(file.read_bytes()[:-20])


def parquet_with(column: pa.Array) -> Callable[[Path], None]:
    return lambda file: pq.write_table(pa.table({"text": pa.array(["t", "u"]), "labels": column}), file)


GOOD_LINE = '{"text": "t", "labels": ["a"]}\n'


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.jsonl", "", ": expected at least one row, found none"),
        ("a.jsonl", GOOD_LINE, ": expected at least 2 rows to draw a test set from, found 1"),
        (
            "a.jsonl",
            '{"text": "t", "labels": []}\n' * 2,
            ": expected at least one label in column 'labels', found none",
        ),
        ("a.jsonl", GOOD_LINE + "{", ", line 2: expected a JSON object, found '{'"),
        ("a.jsonl", GOOD_LINE + '{"text": "t"}\n', ", line 2: expected a field 'labels', found the fields 'text'"),
        ("a.jsonl", GOOD_LINE + '{"labels": []}\n', ", line 2: expected a field 'text', found the fields 'labels'"),
        ("a.jsonl", '{"text": 3, "labels": []}\n', ", line 1: expected text in column 'text', found 3"),
        ("a.jsonl", '{"text": " ", "labels": []}\n', ", line 1: expected text in column 'text', found ' '"),
        (
            "a.jsonl",
            '{"text": "t", "labels": [1.5]}\n',
            ", line 1: expected strings or whole numbers in column 'labels'",
        ),
        (
            "a.jsonl",
            '{"text": "t", "labels": [""]}\n',
            ", line 1: expected strings or whole numbers in column 'labels'",
        ),
        (
            "a.jsonl",
            '{"text": "t", "labels": [true]}\n',
            ", line 1: expected strings or whole numbers in column 'labels'",
        ),
        ("a.jsonl", '{"text": "t", "labels": null}\n', ", line 1: expected labels in column 'labels': a list, or text"),
        ("a.jsonl", '{"text": "t", "labels": 0.5}\n', ", line 1: expected labels in column 'labels': a list, or text"),
        ("a.jsonl.gz", "plain", ", line 1: expected complete gzip data, found Not a gzipped file"),
        ("a.csv", "", ", line 1: expected a header with column names, found an empty file"),
        ("a.csv", "text,tags\nt,a\n", ", line 1: expected one column 'labels', found the columns text, tags"),
        ("a.csv", "text,text,labels\nt,u,a\n", ", line 1: expected one column 'text', found 2 such columns"),
        ("a.csv", "text,labels\nt,a,b\n", ", line 2: expected 2 fields, as in the header, found 3"),
        ("a.csv", "text,labels\nt,a\n\nu,b\n", ", line 3: expected 2 fields, as in the header, found 0"),
        ("a.csv", 'text,labels\nt,a\n"u,b\n', ", line 3: expected CSV, found unexpected end of data"),
        ("a.csv", 'text,labels\n"t\nt",\n,a\n', ", line 4: expected text in column 'text', found ''"),
        ("a.csv", "text,labels\nt,\"['a']\"\n", ", line 2: expected labels in column 'labels': a JSON list where the"),
        ("a.csv", 'text,labels\nt,"[""\\ud800""]"\n', ", line 2: expected strings or whole numbers in column 'labels'"),
        ("a.csv", b"text,labels\ncaf\xe9,a\n", ", line 2: expected UTF-8 text, found byte 0xe9"),
        (
            "a.parquet",
            b"PAR1 but no more",
            ", row 1: expected readable Parquet data, found Parquet magic bytes not found",
        ),
        ("a.parquet", broken_parquet, ", row 1: expected readable Parquet data, found "),
        ("a.parquet", parquet_with(pa.array([["a"], None])), ", row 2: expected labels in column 'labels': a list"),
        ("a.parquet", parquet_with(pa.array([["a"], [None]])), ", row 2: expected strings or whole numbers in column"),
        ("a.parquet", parquet_with(pa.array([1.0, 2.0])), ", row 1: expected labels in column 'labels': a list"),
        ("a.xlsx", "PK", ": expected a file name ending in .jsonl, .json, .csv or .parquet, found 'a.xlsx'"),
    ],
)
def test_bad_tables_are_refused_and_leave_nothing(
    tmp_path: Path, name: str, content: str | bytes | Callable[[Path], None], sentence: str
) -> None:
    file = tmp_path / name
    if callable(content):
        content(file)
    else:
        file.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(DataError) as caught:
        run([file], tmp_path / "out")
    assert str(caught.value).startswith(f"{file}{sentence}")
    assert list(tmp_path.iterdir()) == [file]


def test_missing_parquet_columns_are_named(tmp_path: Path) -> None:
    file = write_parquet(tmp_path / "a.parquet", ROWS)
    with pytest.raises(DataError, match=r"a.parquet: expected one column 'words', found the columns text, labels"):
        run([file], tmp_path / "out", text_column="words")


def test_missing_inputs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a.jsonl: expected a file, found nothing"):
        run([tmp_path / "a.jsonl"], tmp_path / "out")
    with pytest.raises(DataError, match=r": expected a file, found a folder"):
        run([tmp_path], tmp_path / "out")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("id,text\na,A\n", "a.jsonl, line 1: expected labels that '{texts}' lists, found 'b'"),
        ("id,text\n", "labels.csv: expected at least one label, found none"),
        ("id,text\na,A\na,B\n", "labels.csv, line 3: expected every label once, found 'a' again"),
        ("id,text\n,A\n", "labels.csv, line 2: expected strings or whole numbers in column 'id', found ''"),
        ("id,text\na,\n", "labels.csv, line 2: expected text in column 'text', found ''"),
        ("id,name\na,A\n", "labels.csv, line 1: expected one column 'text', found the columns id, name"),
    ],
)
def test_bad_label_texts_are_refused(tmp_path: Path, content: str, sentence: str) -> None:
    file = write_jsonl(tmp_path / "a.jsonl", [("t", ["a", "b"]), ("u", ["a"])])
    texts = tmp_path / "labels.csv"
    texts.write_text(content)
    with pytest.raises(DataError) as caught:
        run([file], tmp_path / "out", label_texts=texts)
    assert str(caught.value) == f"{tmp_path}/{sentence.format(texts=texts)}"
    assert not (tmp_path / "out").exists()


def test_an_existing_target_is_refused_and_left_alone(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "a.jsonl", ROWS)
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine").write_text("kept")
    with pytest.raises(DataError, match=r"out: expected a folder that does not exist yet, found one that does"):
        run([file], out)
    assert contents(out) == {"mine": b"kept"}


def test_a_failure_while_writing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_jsonl(tmp_path / "a.jsonl", ROWS)

    def fail(self: Path, target: Path) -> None:
        assert sorted(part.name for part in self.iterdir()) == [
            "card.json", "lbl.json.gz", "trn.json.gz", "tst.json.gz",
        ]  # fmt: skip
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OSError, match="no space left"):
        run([file], tmp_path / "out")
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("fraction", [0, 1, -0.1, float("nan")])
def test_a_fraction_is_above_0_and_below_1(tmp_path: Path, fraction: float) -> None:
    with pytest.raises(ValueError, match="test_fraction: expected a number above 0 and below 1"):
        run([tmp_path / "a.jsonl"], tmp_path / "out", test_fraction=fraction)


def test_a_separator_is_not_empty(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="label_separator: expected at least one character"):
        run([tmp_path / "a.jsonl"], tmp_path / "out", label_separator="")
