"""The journal of changed labels: what was acknowledged is in it, whatever happened since."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import BundleError, Conflict, NotSaved
from service.live.changes import LabelChange, LabelChanges, NewLabel
from service.live.journal import Journal, journal_name, read_journal
from tests.service.models.processes import at_most

NEW = LabelChange(add=(NewLabel(id="a", text="näher\n“dran”"),))
OFF, ON, GONE = LabelChange(disable=("a", "x")), LabelChange(enable=("x",)), LabelChange(remove=("a",))


def written(path: Path, *changes: LabelChange) -> Journal:
    journal = Journal(path, "tags")
    for change in changes:
        journal.append(change)
    return journal


def test_changes_are_there_again_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / journal_name("tags")
    written(path, NEW, OFF, ON).close()
    assert path.name == "tags.labels.jsonl"
    assert Journal(path, "tags").changes == LabelChanges({"a": False, "x": True}, {"a": NEW.add[0].text})
    assert read_journal(path) == LabelChanges.of([NEW, OFF, ON])


def test_no_file_is_made_before_there_is_a_change(tmp_path: Path) -> None:
    path = tmp_path / "j"
    assert Journal(path, "tags").changes == LabelChanges()
    with pytest.raises(Conflict):
        written(path, GONE)
    assert not path.exists()


@given(st.lists(st.sampled_from([NEW, OFF, ON]), min_size=1, max_size=5), st.data())
def test_whatever_is_cut_off_the_changes_before_it_are_there(
    tmp_path_factory: pytest.TempPathFactory, changes: list[LabelChange], data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("journals") / "j"
    ends = []
    journal = Journal(path, "tags")
    for change in changes:
        journal.append(change)
        ends.append(path.stat().st_size)
    journal.close()
    cut = data.draw(st.integers(0, ends[-1]))
    os.truncate(path, cut)
    left = sum(end <= cut for end in ends)
    again = Journal(path, "tags")
    assert again.changes == LabelChanges.of(changes[:left])
    again.append(OFF)
    again.close()
    assert read_journal(path, "tags") == LabelChanges.of([*changes[:left], OFF])


@pytest.mark.parametrize("room", [0, 1, 10, 50])
def test_a_disk_that_is_full_changes_nothing(tmp_path: Path, room: int) -> None:
    path = tmp_path / "j"
    journal = written(path, NEW)
    before = path.read_bytes()
    with at_most(len(before) + room), pytest.raises(NotSaved, match=r"j could not be written: File too large"):
        journal.append(OFF)
    assert path.read_bytes() == before
    assert journal.changes == LabelChanges.of([NEW])
    journal.append(OFF)
    assert read_journal(path) == LabelChanges.of([NEW, OFF])


def test_a_folder_that_cannot_be_written_to_changes_nothing(tmp_path: Path) -> None:
    with pytest.raises(NotSaved, match="No such file or directory"):
        written(tmp_path / "missing" / "j", NEW)


def test_one_process_at_a_time_writes(tmp_path: Path) -> None:
    path = tmp_path / "j"
    first = written(path, NEW)
    second = Journal(path, "tags")
    with pytest.raises(NotSaved, match="written by another process"):
        second.append(OFF)
    first.append(ON)
    first.close()
    with pytest.raises(NotSaved, match="changed by another process"):
        second.append(OFF)
    assert read_journal(path) == LabelChanges.of([NEW, ON])


@pytest.mark.parametrize("instead", [None, b'{"journal":1,"model":"tags"}\n'])
def test_nothing_is_written_where_nobody_would_read_it(tmp_path: Path, instead: bytes | None) -> None:
    path = tmp_path / "j"
    journal = written(path, NEW)
    path.rename(tmp_path / "moved")
    if instead is not None:
        path.write_bytes(instead)
    with pytest.raises(NotSaved, match="was moved or deleted"):
        journal.append(OFF)
    assert journal.changes == read_journal(tmp_path / "moved") == LabelChanges.of([NEW])


def test_what_another_process_has_broken_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "j"
    journal = Journal(path, "tags")
    path.write_bytes(b"{}\n")
    with pytest.raises(NotSaved, match="changed by another process"):
        journal.append(OFF)
    assert path.read_bytes() == b"{}\n"


def test_a_writer_that_is_killed_loses_nothing_that_it_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "j"
    program = (
        "import itertools, sys; from pathlib import Path; from service.live.changes import *; "
        "from service.live.journal import Journal; journal = Journal(Path(sys.argv[1]), 'tags')\n"
        "for number in itertools.count():\n"
        "    journal.append(LabelChange(disable=(f'{number}' * 500,)))\n"
        "    print(number, flush=True)"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        lines = [next(writer.stdout) for _ in range(20)]
        writer.kill()
        acknowledged = [int(line) for line in [*lines, *writer.stdout]]
    there = Journal(path, "tags")
    assert set(there.changes.disabled) >= {f"{number}" * 500 for number in acknowledged}
    assert len(there.changes.disabled) <= len(acknowledged) + 1
    there.append(ON)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b'{"journal":2,"model":"tags"}\n', "j:1: expected the head of a journal of labels, found: journal:"),
        (b'{"journal":1,"model":"others"}\n', "j:1: .* found: that of others, and the model is tags"),
        (b'{"at":"now","disable":["a"]}\n', "j:1: expected the head"),
        (b"\n", "j:1: expected the head"),
        (b'{"journal":1,"model":"tags"}\n{"at":"now","disable":["a"]\n', "j:2: expected a change of labels"),
        (b'{"journal":1,"model":"tags"}\n\0\0\0\n', "j:2: expected a change of labels"),
        (b'{"journal":1,"model":"tags"}\n{"at":"now","remove":["a"]}\n', "j: expected changes that follow from each"),
    ],
)
def test_a_journal_that_was_tampered_with_is_refused(tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / "j"
    path.write_bytes(content)
    with pytest.raises(BundleError, match=sentence):
        Journal(path, "tags")


def test_a_journal_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="expected a readable journal"):
        Journal(tmp_path, "tags")
