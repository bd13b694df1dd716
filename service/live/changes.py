"""What administrators change of a model's labels, one change at a time, and what all changes come to.

A change is the body of a request, and a line of the journal: its fields' names are a promise twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from service.errors import Conflict, shown

LabelId = Annotated[str, StringConstraints(min_length=1, max_length=1024)]
# Longer than any encoder reads.
LabelText = Annotated[str, StringConstraints(min_length=1, max_length=50_000, pattern=r"\S")]


class NewLabel(BaseModel):
    """A label that no version had when it was trained."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    id: LabelId
    text: LabelText = Field(description="What its vector is made from.")


class LabelChange(BaseModel):
    """Changes of a model's labels that happen together or not at all."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    disable: tuple[LabelId, ...] = Field((), description="Labels that are no longer answered.")
    enable: tuple[LabelId, ...] = Field((), description="Labels that are answered again.")
    add: tuple[NewLabel, ...] = Field((), description="Labels that are answered, too, by what their texts mean.")
    remove: tuple[LabelId, ...] = Field((), description="Labels that were added so, and go.")

    @model_validator(mode="after")
    def _says_one_thing_of_each(self) -> Self:
        _require_distinct("disable, enable and remove", chain(self.disable, self.enable, self.remove))
        _require_distinct("add and remove", chain((label.id for label in self.add), self.remove))
        return self

    @property
    def is_empty(self) -> bool:
        """Whether nothing changes."""
        return not (self.disable or self.enable or self.add or self.remove)


@dataclass(frozen=True)
class LabelChanges:
    """What a model's changes come to.

    Attributes:
        enabled: by the ids that were last enabled or disabled, which of both.
        added: texts by ids, in the order in which they were added.
    """

    enabled: Mapping[str, bool] = field(default_factory=dict)
    added: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, changes: Iterable[LabelChange]) -> LabelChanges:
        """What some changes come to, in their order.

        Raises:
            Conflict: one removes what was never added, or adds a label that is there with another text.
        """
        return cls()._with(changes)

    def after(self, change: LabelChange) -> LabelChanges:
        """What they come to with one more.

        Raises:
            Conflict: see `of`.
        """
        return self._with([change])

    def _with(self, changes: Iterable[LabelChange]) -> LabelChanges:
        enabled, added = dict(self.enabled), dict(self.added)
        for change in changes:
            _apply(change, enabled, added)
        return LabelChanges(enabled, added)

    @property
    def disabled(self) -> list[str]:
        """Ids of the labels that are not answered."""
        return [id_ for id_, enabled in self.enabled.items() if not enabled]

    def as_one(self) -> LabelChange:
        """One change that comes to the same."""
        return LabelChange(
            disable=tuple(self.disabled),
            enable=tuple(id_ for id_, enabled in self.enabled.items() if enabled),
            add=tuple(NewLabel(id=id_, text=text) for id_, text in self.added.items()),
        )


def _apply(change: LabelChange, enabled: dict[str, bool], added: dict[str, str]) -> None:
    for place, id_ in enumerate(change.remove):
        if id_ not in added:
            raise Conflict(f"remove[{place}]: expected a label that was added while it is served, found {shown(id_)}")
        del added[id_]
        enabled.pop(id_, None)
    for place, label in enumerate(change.add):
        if added.setdefault(label.id, label.text) != label.text:
            raise Conflict(f"add[{place}]: {shown(label.id)} was added with another text: remove it first")
    enabled.update(dict.fromkeys(change.disable, False) | dict.fromkeys(change.enable, True))


def _require_distinct(where: str, ids: Iterable[str]) -> None:
    seen: set[str] = set()
    for id_ in ids:
        if id_ in seen:
            raise ValueError(f"expected each label once in {where}, found {shown(id_)} twice")
        seen.add(id_)
