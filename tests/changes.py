"""Changes of labels, in fewer words than they have where they are served."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from service.engine import Engine
from service.live.changes import LabelChange, NewLabel
from service.live.proposals import Decision, Reception

NOTHING: Mapping[str, str] = MappingProxyType({})


def change(add: Mapping[str, str] = NOTHING, **ids: Iterable[str]) -> LabelChange:
    """Labels to add, texts by ids, and ids to disable, enable or remove."""
    new = tuple(NewLabel(id=id_, text=text) for id_, text in add.items())
    return LabelChange(add=new, **{kind: tuple(some) for kind, some in ids.items()})


def make(engine: Engine, one: LabelChange) -> Reception:
    """Change an engine's labels, and tell what it had to say."""
    reception = engine.live.propose(one)
    engine.live.decide(Decision.DONE)
    return reception
