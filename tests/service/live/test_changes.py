"""What changes of labels come to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from service.errors import Conflict
from service.live.changes import LabelChange, LabelChanges
from tests.changes import change

IDS = ("a", "b", "c")


@st.composite
def changes(draw: st.DrawFn) -> LabelChange:
    said = {id_: draw(st.sampled_from(["disable", "enable", "remove", None])) for id_ in IDS}
    new = [id_ for id_ in IDS if said[id_] != "remove" and draw(st.booleans())]
    by_kind = {kind: [id_ for id_ in IDS if said[id_] == kind] for kind in ("disable", "enable", "remove")}
    return change({id_: draw(st.sampled_from(["one", "two"])) for id_ in new}, **by_kind)


def test_the_last_word_on_a_label_counts() -> None:
    state = LabelChanges.of([change(disable=["a", "b"]), change(enable=["a"]), change(disable=["c"])])
    assert state.enabled == {"a": True, "b": False, "c": False}
    assert state.disabled == ["b", "c"]


def test_a_label_that_is_removed_leaves_nothing_behind() -> None:
    state = LabelChanges.of([change(add={"a": "x"}), change(disable=["a"]), change(remove=["a"])])
    assert state == LabelChanges()


def test_adding_the_same_label_again_changes_nothing() -> None:
    state = LabelChanges.of([change(add={"a": "x"}), change(disable=["a"])])
    assert state.after(change(add={"a": "x"})) == state


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (change(add={"b": "y", "a": "z"}), r'add\[1\]: "a" was added with another text'),
        (change(remove=["a", "b"]), r'remove\[1\]: expected a label that was added while it is served, found "b"'),
    ],
)
def test_a_change_that_does_not_fit_changes_nothing(wrong: LabelChange, sentence: str) -> None:
    state = LabelChanges.of([change(add={"a": "x"})])
    with pytest.raises(Conflict, match=sentence):
        state.after(wrong)
    assert state == LabelChanges({}, {"a": "x"})


@pytest.mark.parametrize(
    "body",
    [
        '{"disable": ["a"], "enable": ["a"]}',
        '{"disable": ["a", "a"]}',
        '{"add": [{"id": "a", "text": "x"}, {"id": "a", "text": "y"}]}',
        '{"add": [{"id": "a", "text": "x"}], "remove": ["a"]}',
        '{"add": [{"id": "a", "text": " \\n"}]}',
        '{"add": [{"id": "", "text": "x"}]}',
        '{"add": [{"id": "a"}]}',
        '{"disable": "a"}',
        '{"delete": ["a"]}',
    ],
)
def test_a_change_that_contradicts_itself_is_refused(body: str) -> None:
    with pytest.raises(ValidationError):
        LabelChange.model_validate_json(body)


@given(st.lists(changes(), max_size=6))
def test_one_change_comes_to_the_same_as_many(many: list[LabelChange]) -> None:
    state = LabelChanges()
    for one in many:
        try:
            state = state.after(one)
        except Conflict:
            continue
    again = LabelChanges.of([state.as_one()])
    assert again == state
    assert list(again.added) == list(state.added)
