"""Tables, pictures and documents of a report that is made by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.compare import markdown, page, plots, tables
from training.compare.report import Line, Report
from training.compare.truth import KS, Part, Scores
from training.data.card import Card
from training.metrics import report as measure_names

VOID = {"meta", "img", "br", "link"}


def scores(value: float) -> Scores:
    from scipy.sparse import csr_array

    names = measure_names(np.full((1, 100), -1), csr_array((1, 3), dtype=np.float32), np.ones(3), KS)
    return Scores(dict.fromkeys(names, value), {"head": value / 2, "tail": value / 2}, {"head": value, "tail": value})


def made() -> Report:
    lines = (
        Line("mach", "ours", scores(50.0), artifact_bytes=9_000_000, bundle_bytes=4_000_000, read_seconds=1.0),
        replace(
            Line("a|b <i>", "peer", scores(60.0), artifact_bytes=2_000_000),
            train_seconds=1234.5,
            cpu_seconds=3.0,
            peak_bytes=2**20,
            planned_bytes=2**21,
            p50_ms=0.25,
            p99_ms=1.0,
            prepare_p50_ms=0.125,
            note="library 1.0: defaults",
        ),
        Line("unidec", "ours", note="data: this data set has no label texts"),
        Line("constant", "constant", scores(2.0)),
    )
    card = Card("things & more", "features", 3, 7, has_label_texts=False)
    parts = (Part("head", 5, 9, 1, 10), Part("tail", 0, 2, 2, 9))
    return Report("xmc-train compare --data d", "2026-11-22", "a machine", card, 100, 20, parts, lines)


@pytest.fixture
def pictures(tmp_path: Path) -> list[plots.Picture]:
    return plots.draw(made(), tmp_path)


def test_numbers_survive_json() -> None:
    report = made()
    found = json.loads(json.dumps(report.as_dict()))
    assert found["lines"][1]["scores"]["measures"]["P@1"] == 60
    assert found["lines"][2]["scores"] is None
    assert found["card"]["label_count"] == 3


def test_the_best_is_marked_and_what_is_missing_is_no_number() -> None:
    table = tables.accuracy(made())
    assert table.heads[1:] == tables.MEASURES
    assert [row[0] for row in table.rows] == ["mach", "a|b <i>", "unidec", "constant"]
    assert table.rows[2][1:] == (tables.NOTHING,) * len(tables.MEASURES)
    assert table.best == {(1, place + 1) for place in range(len(tables.MEASURES))}
    assert "unidec: data: this data set has no label texts" in table.notes


def test_what_reads_alike_is_marked_alike() -> None:
    report = made()
    lines = (Line("a", "ours", scores(50.001)), Line("b", "ours", scores(50.0)), Line("c", "ours", scores(49.9)))
    table = tables.accuracy(replace(report, lines=lines))
    assert {row for row, _ in table.best} == {0, 1}


def test_costs_in_their_units() -> None:
    table = tables.costs(made())
    ours, peer = (dict(zip(table.heads, row, strict=True)) for row in table.rows[:2])
    assert (ours["artifact MB"], ours["bundle MB"], ours["read s"], ours["train s"]) == ("9.0", "4.0", "1.0", "–")
    assert (peer["train s"], peer["CPU s"], peer["peak MiB"], peer["planned MiB"]) == ("1,234.5", "3.0", "1", "2")
    assert (peer["p50 ms"], peer["p99 ms"], peer["text ms"]) == ("0.25", "1.00", "0.12")
    assert "constant" not in [row[0] for row in table.rows]


def test_parts_say_their_bounds() -> None:
    table = tables.label_parts(made())
    assert table.heads[1:] == ("head: of P@5", "tail: of P@5", "head: R@5", "tail: R@5")
    assert table.rows[1][1:] == ("30.00", "30.00", "60.00", "60.00")
    assert table.notes[0] == "head: 1 labels with 5 to 9 training points each, 10 test positives."


def test_pictures_are_png_files_that_say_in_words_what_they_show(pictures: list[plots.Picture]) -> None:
    assert [picture.file.name for picture in pictures] == ["pareto.png", "parts.png"]
    for picture in pictures:
        assert picture.file.read_bytes().startswith(b"\x89PNG\r\n")
    assert pictures[0].text == (
        "Scatter plots. mach: 4.0 MB, P@1 50.0 %, PSP@5 50.0 %; a|b <i>: 2.0 MB, P@1 60.0 %, PSP@5 60.0 %"
    )
    assert "constant: head 1.0, tail 1.0" in pictures[1].text


def test_without_bundles_there_is_no_picture_of_bytes(tmp_path: Path) -> None:
    report = made()
    lines = tuple(replace(line, artifact_bytes=None, bundle_bytes=None) for line in report.lines)
    assert [picture.file.name for picture in plots.draw(replace(report, lines=lines), tmp_path)] == ["parts.png"]


@given(points=st.lists(st.tuples(st.integers(1, 6), st.integers(0, 6)), min_size=1, max_size=8))
def test_the_front_is_what_nothing_beats(points: list[tuple[float, float]]) -> None:
    front = plots.pareto_front(points)

    def beaten(point: tuple[float, float]) -> bool:
        return any(other != point and other[0] <= point[0] and other[1] >= point[1] for other in points)

    assert {points[place] for place in front} == {point for point in points if not beaten(point)}
    assert len({points[place] for place in front}) == len(front)
    sizes = [points[place][0] for place in front]
    assert sizes == sorted(sizes)


def test_markdown_tables_have_a_cell_for_every_head(pictures: list[plots.Picture]) -> None:
    written = markdown.write(made(), pictures)
    for block in written.split("\n\n"):
        rows = [line for line in block.splitlines() if line.startswith("|")]
        assert len({line.replace("\\|", "").count("|") for line in rows}) <= 1
    assert "| a\\|b <i> | **60.00** |" in written
    assert "](pareto.png)" in written
    assert written.startswith("# Comparison on things & more\n\n```\nxmc-train compare --data d\n```\n")


class Page(HTMLParser):
    """Checks that elements are closed in order, and collects what a reader sees and what a browser would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.text: list[str] = []
        self.references: list[str] = []
        self.alternatives: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name in ("src", "href"):
                self.references.append(value or "")
            if name == "alt":
                self.alternatives.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_page_is_whole_and_fetches_nothing(pictures: list[plots.Picture]) -> None:
    written = page.write(made(), pictures)
    assert written.startswith("<!DOCTYPE html>\n")
    assert '<meta name="viewport" content="width=device-width' in written
    found = Page(written)
    assert found.tags.count("table") == 3
    assert found.tags.count("img") == len(pictures)
    assert all(reference.startswith("data:image/png;base64,") for reference in found.references)
    assert found.alternatives == [picture.text for picture in pictures]
    assert "://" not in written
    assert "a|b <i>" in found.text
    assert "Comparison on things & more" in found.text
