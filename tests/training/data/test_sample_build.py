"""The rules by which the sample is made, on an index small enough to check by hand."""

from __future__ import annotations

import json
from pathlib import Path

from training.data.records import open_source
from training.data.sample.build import Package, make_sample, parse_index, write_sample

INDEX = """\
Package: editor
Version: 1.0-2
Depends: libc, libtext (>= 2.1~), spell | spell-engine,
 ignored-continuation
Pre-Depends: loader:any
Description: edits text
 A long description
 .
 Package: inside-a-description
Section: editors

Package: editor-data
Source: editor (1.0)
Depends: editor, fonts [amd64] <!nocheck>
Description: files: of the editor

Package: fonts
Description: letters

Package: libc
Description: the C library

Package: libtext
Source: text
Depends: libc
Suggests: editor
Description: text library

Package: libtext
Source: text-old
Recommends: fonts
Description: an older text library

Package: loader
Recommends: libc
Description: loads programs

Package: spell
Provides: spell-engine
Depends: virtual-dictionary
Description: checks spelling
"""


def test_stanzas_are_parsed() -> None:
    packages = parse_index(INDEX)
    assert list(packages) == ["editor", "editor-data", "fonts", "libc", "libtext", "loader", "spell"]
    assert packages["editor"].wants == {"loader", "libc", "libtext", "spell", "spell-engine"}
    assert packages["editor"].text == "editor edits text"
    assert packages["editor"].source == "editor"
    assert packages["editor-data"].source == "editor"
    assert packages["editor-data"].text == "editor-data files: of the editor"
    assert packages["editor-data"].wants == {"editor", "fonts"}


def test_the_first_stanza_of_a_name_counts() -> None:
    libtext = parse_index(INDEX)["libtext"]
    assert libtext == Package("text", "libtext text library", frozenset({"libc", "editor"}))


def test_virtual_names_siblings_and_common_packages_are_no_labels() -> None:
    sample = make_sample(parse_index(INDEX), most_users=2, test_share=0.0, seed=0)
    assert sample.test == {}
    assert sample.train == {
        "editor": ["libtext", "loader", "spell"],  # libc has three users, spell-engine is virtual
        "editor-data": ["fonts"],  # editor is built from the same source
        "libtext": ["editor"],
    }
    assert sample.labels == ["editor", "fonts", "libtext", "loader", "spell"]


def test_the_limit_on_users_is_inclusive() -> None:
    sample = make_sample(parse_index(INDEX), most_users=3, test_share=0.0, seed=0)
    assert sample.train["loader"] == ["libc"]


def test_sources_are_never_in_both_sets() -> None:
    packages = parse_index(INDEX)
    drawn = set()
    for seed in range(20):
        sample = make_sample(packages, most_users=3, test_share=0.34, seed=seed)
        assert sample == make_sample(packages, most_users=3, test_share=0.34, seed=seed)
        sources = [{packages[name].source for name in split} for split in (sample.train, sample.test)]
        assert not sources[0] & sources[1]
        assert len(sources[1]) == 1
        assert sample.labels == ["editor", "fonts", "libc", "libtext", "loader", "spell"]
        drawn |= sources[1]
    assert drawn == {"editor", "text", "loader"}


def test_what_is_written_is_a_data_folder_of_the_same_bytes_each_time(tmp_path: Path) -> None:
    packages = parse_index(INDEX)
    sample = make_sample(packages, most_users=3, test_share=0.34, seed=0)
    for name in ("one", "two"):
        write_sample(tmp_path / name, sample, packages)
    files = sorted(file.name for file in (tmp_path / "one").iterdir())
    assert files == ["SHA256SUMS", "card.json", "lbl.json.gz", "trn.json.gz", "tst.json.gz"]
    assert all((tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes() for name in files)
    source = open_source(tmp_path / "one")
    assert source.label_ids == sample.labels
    assert source.label_texts == [packages[label].text for label in sample.labels]
    for split, points in (("trn", sample.train), ("tst", sample.test)):
        read = list(source.points(split))
        assert [point.text for point in read] == [packages[name].text for name in points]
        assert [[sample.labels[row] for row in point.labels] for point in read] == list(points.values())
    assert json.loads((tmp_path / "one" / "card.json").read_text())["name"] == "debian-bookworm"
