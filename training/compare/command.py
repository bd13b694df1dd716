"""From a list of models to a folder with the report: what `xmc-train compare` does."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from training.compare import markdown, page, plots
from training.compare.entries import Entry, read_entries
from training.compare.peers import read_peer
from training.compare.report import Line, Report, make_report, own_line, peer_line
from training.compare.stages import StageFailed, Stages
from training.compare.truth import Truth, read_truth
from training.data.records import Source
from training.loop import RunError

SETTINGS = "compare.json"


class ModelsFailed(Exception):
    """The report is written, but a command ended in a way that is no refusal of data."""


@dataclass(frozen=True)
class Comparison:
    """What was asked for.

    Attributes:
        data: the data folder as the user named it.
        recipes: recipes and artifacts, with commas.
        assignments: options for every recipe.
        peers: files of other libraries' models.
        out: folder to write.
        resume: whether what stands there is to be gone on with.
        command: what was typed, for the report.
    """

    data: str
    recipes: str
    assignments: tuple[str, ...]
    peers: tuple[Path, ...]
    out: Path
    resume: bool
    command: str


def compare(wanted: Comparison, source: Source, log: Callable[[str], None]) -> Report:
    """Train, rank, export and time what is not done yet, and write the report.

    A model that cannot be made has a line that says why.

    Args:
        wanted: what to compare.
        source: the data, opened.
        log: takes lines for the user.

    Raises:
        WrongOption: an entry, an option or a peer's file is not what it should be.
        RunError: the folder exists, or was begun with other data or options.
        RankingError: a ranking does not fit the test split.
        ModelsFailed: a command crashed; the report is there, with its line.
    """
    entries = read_entries(wanted.recipes, wanted.assignments)
    _open_folder(wanted)
    truth = read_truth(source)
    others = [peer_line(read_peer(file, truth), file, truth) for file in wanted.peers]
    stages = Stages(wanted.data, wanted.out, wanted.assignments, log)
    lines, crashed = _own_lines(entries, stages, truth)
    report = make_report(wanted.command, source.card, truth, [*lines, *others])
    _write(report, wanted.out)
    if crashed:
        raise ModelsFailed(f"{', '.join(crashed)} failed; {wanted.out}/report.md says how")
    return report


def _own_lines(entries: Sequence[Entry], stages: Stages, truth: Truth) -> tuple[list[Line], list[str]]:
    lines, crashed = [], []
    for entry in entries:
        try:
            lines.append(own_line(entry.name, stages.make(entry), truth))
        except StageFailed as error:
            lines.append(Line(entry.name, "ours", note=str(error)))
            if not error.refused:
                crashed.append(entry.name)
    return lines, crashed


def _open_folder(wanted: Comparison) -> None:
    """Begin the folder, or see that it was begun with the same data and options."""
    asked = {"data": wanted.data, "set": list(wanted.assignments)}
    file = wanted.out / SETTINGS
    if not wanted.out.exists():
        wanted.out.mkdir(parents=True)
        file.write_text(json.dumps(asked, indent=1) + "\n", encoding="utf-8")
    elif not wanted.resume:
        raise RunError(f"{wanted.out} exists already; give another --out, or go on with it by --resume")
    elif not file.exists() or json.loads(file.read_text(encoding="utf-8")) != asked:
        raise RunError(f"{wanted.out} was begun with other --data or --set (see {SETTINGS} in it); give another --out")


def _write(report: Report, folder: Path) -> None:
    """`report.json` first: the numbers are safe whatever befalls the pictures."""
    numbers = json.dumps(report.as_dict(), indent=1, ensure_ascii=False)
    (folder / "report.json").write_text(numbers + "\n", encoding="utf-8")
    pictures = plots.draw(report, folder)
    (folder / "report.md").write_text(markdown.write(report, pictures), encoding="utf-8")
    (folder / "report.html").write_text(page.write(report, pictures), encoding="utf-8")
