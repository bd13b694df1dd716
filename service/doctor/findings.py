"""What a check says of one thing that it looked at."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """Whether it is as it should be.

    A note is worth knowing and keeps nothing from working; a fault keeps a server from starting, or from working well.
    """

    OK = "ok"
    NOTE = "note"
    FAULT = "fault"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; `ok`, `note` and `fault` make it.

    Attributes:
        subject: what was looked at.
        found: what is there.
        state: whether that is as it should be.
        advice: what to do.
    """

    subject: str
    found: str
    state: State
    advice: str = ""


def ok(subject: str, found: str) -> Finding:
    """It is as it should be."""
    return Finding(subject, found, State.OK)


def note(subject: str, found: str, advice: str = "") -> Finding:
    """It is worth knowing."""
    return Finding(subject, found, State.NOTE, advice)


def fault(subject: str, found: str, advice: str) -> Finding:
    """It is wrong."""
    return Finding(subject, found, State.FAULT, advice)
