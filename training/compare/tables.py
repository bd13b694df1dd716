"""The report's tables, as cells; Markdown and HTML are two ways to write them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from training.compare.report import Line, Report
from training.compare.truth import PART_K

MB = 10**6
MIB = 2**20
MEASURES = ("P@1", "P@3", "P@5", "nDCG@1", "nDCG@3", "nDCG@5", "PSP@1", "PSP@3", "PSP@5", "R@100", "coverage@5")
NOTHING = "–"

_Row = tuple[str, Callable[[Line], float | None], str]


@dataclass(frozen=True)
class Table:
    """Cells as text.

    Attributes:
        title: what it is about.
        heads: names of the columns; the first column names the lines.
        rows: as many cells each.
        best: positions (row, column) of the best value of each column in which more is better.
        notes: sentences below it.
    """

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    best: frozenset[tuple[int, int]] = frozenset()
    notes: tuple[str, ...] = ()


COSTS: tuple[_Row, ...] = (
    ("artifact MB", lambda line: _scaled(line.artifact_bytes, MB), ".1f"),
    ("bundle MB", lambda line: _scaled(line.bundle_bytes, MB), ".1f"),
    ("read s", lambda line: line.read_seconds, ".1f"),
    ("train s", lambda line: line.train_seconds, ".1f"),
    ("CPU s", lambda line: line.cpu_seconds, ".1f"),
    ("peak MiB", lambda line: _scaled(line.peak_bytes, MIB), ".0f"),
    ("planned MiB", lambda line: _scaled(line.planned_bytes, MIB), ".0f"),
    ("p50 ms", lambda line: line.p50_ms, ".2f"),
    ("p99 ms", lambda line: line.p99_ms, ".2f"),
    ("text ms", lambda line: line.prepare_p50_ms, ".2f"),
)
COST_NOTES = (
    "artifact: all files of the trained model; of other libraries, the model they save. bundle: all files that serving "
    "needs.",
    "read s: from opening the data to rows of token ids or vectors. train s: everything after that, to the finished "
    "model, the measuring of held-out rows included. CPU s: of both, summed over threads.",
    "peak MiB: the most resident memory of the process that read the data and trained (VmHWM), less what it held with "
    "its libraries loaded and one tiny step taken. planned MiB: what `xmc-train fit --dry-run` says of the same.",
    "p50, p99: one query alone, from token ids or vector to five labels; ours on the exported bundle through the "
    "server's engine without HTTP. text ms: the median of what comes before, from text to ids or vector.",
)


def tables(report: Report) -> list[Table]:
    """All tables of a report."""
    return [accuracy(report), costs(report), label_parts(report)]


def accuracy(report: Report) -> Table:
    """Measures of the test split; a model that could not be made has its note instead."""
    lines = report.lines
    columns: list[_Row] = [(name, _measure(name), ".2f") for name in MEASURES]
    notes = tuple(f"{line.name}: {line.note}" for line in lines if line.note)
    return _table("Accuracy, in percent", lines, columns, notes, best=True)


def costs(report: Report) -> Table:
    """Bytes, seconds, memory and latency."""
    return _table("Cost", [line for line in report.lines if line.kind != "constant"], COSTS, COST_NOTES)


def label_parts(report: Report) -> Table:
    """What labels of like frequency contribute to P@5, and the share of their positives that is found."""
    columns: list[_Row] = []
    for part in report.parts:
        columns.append((f"{part.name}: of P@{PART_K}", _of_part("part_precision", part.name), ".2f"))
    for part in report.parts:
        columns.append((f"{part.name}: R@{PART_K}", _of_part("part_recall", part.name), ".2f"))
    bounds = tuple(
        f"{part.name}: {part.labels:,} labels with {_range(part.least, part.most)} training points each, "
        f"{part.positives:,} test positives."
        for part in report.parts
    )
    notes = (*bounds, f"Contributions add up to P@{PART_K}. Recall is over all positives of a part.")
    return _table("Head, torso and tail", report.lines, columns, notes, best=True)


def _table(
    title: str, lines: Sequence[Line], columns: Sequence[_Row], notes: tuple[str, ...], *, best: bool = False
) -> Table:
    values = [[value(line) for _, value, _ in columns] for line in lines]
    forms = [form for _, _, form in columns]
    rows = [(line.name, *map(_shown, found, forms)) for line, found in zip(lines, values, strict=True)]
    marks = set()
    for place in range(len(columns) if best else 0):
        found = [(row[place], at) for at, row in enumerate(values) if row[place] is not None]
        # By the text shown: what reads alike is marked alike.
        top = rows[max(found)[1]][place + 1] if found else NOTHING
        marks |= {(at, place + 1) for _, at in found if rows[at][place + 1] == top}
    return Table(title, ("", *(head for head, _, _ in columns)), tuple(rows), frozenset(marks), notes)


def _shown(value: float | None, form: str) -> str:
    return NOTHING if value is None else f"{value:,{form}}"


def _measure(name: str) -> Callable[[Line], float | None]:
    return lambda line: None if line.scores is None else line.scores.measures[name]


def _of_part(kind: str, name: str) -> Callable[[Line], float | None]:
    def value(line: Line) -> float | None:
        values: dict[str, float] = {} if line.scores is None else getattr(line.scores, kind)
        return values.get(name)

    return value


def _scaled(size: int | None, unit: int) -> float | None:
    return None if size is None else size / unit


def _range(least: int, most: int) -> str:
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"
