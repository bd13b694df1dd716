"""What the checks found, for a person and for a program."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict

from service.doctor.examination import Examined
from service.doctor.findings import Finding, State

GAP = "  "
# Faults are to be seen at a glance.
MARKS = {State.OK: "ok", State.NOTE: "note", State.FAULT: "FAULT"}


def as_table(examined: Iterable[Examined]) -> str:
    """A line for each finding, one for what to do about it, and their number at the end."""
    findings = list(_rows(examined))
    cells = [(MARKS[one.state], name, _line(one.subject), _line(one.found)) for name, one in findings]
    widths = [max((len(row[column]) for row in cells), default=0) for column in range(3)]
    indent = " " * (sum(widths) + len(widths) * len(GAP))
    lines = []
    for (*first, found), (_, finding) in zip(cells, findings, strict=True):
        lines.append(GAP.join([*(cell.ljust(width) for cell, width in zip(first, widths, strict=True)), found]))
        if finding.advice:
            lines.append(f"{indent}-> {_line(finding.advice)}")
    return "\n".join([*lines, "", _summary(finding for _, finding in findings), ""])


def as_json(examined: Iterable[Examined]) -> str:
    """One object: how many findings of each state there are, and all of them."""
    findings = list(_rows(examined))
    states = Counter(finding.state for _, finding in findings)
    content = {
        "faults": states[State.FAULT],
        "notes": states[State.NOTE],
        "findings": [{"check": name, **asdict(finding)} for name, finding in findings],
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _rows(examined: Iterable[Examined]) -> Iterator[tuple[str, Finding]]:
    for one in examined:
        for finding in one.findings:
            yield one.check.name, finding


def _line(text: str) -> str:
    return " ".join(text.split())


def _summary(findings: Iterable[Finding]) -> str:
    states = Counter(finding.state for finding in findings)
    return f"{_number(states[State.FAULT], 'fault')}, {_number(states[State.NOTE], 'note')}"


def _number(count: int, noun: str) -> str:
    return f"{count or 'no'} {noun}{'' if count == 1 else 's'}"
