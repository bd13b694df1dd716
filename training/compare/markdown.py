"""The report as Markdown, with its pictures beside it."""

from __future__ import annotations

from collections.abc import Sequence

from training.compare.plots import Picture
from training.compare.report import Report
from training.compare.tables import Table, tables


def write(report: Report, pictures: Sequence[Picture]) -> str:
    """The whole document."""
    blocks = [f"# Comparison on {report.card.name}", f"```\n{report.command}\n```", *introduction(report)]
    blocks += [_table(table) for table in tables(report)]
    blocks += [f"## {picture.title}\n\n![{picture.text}]({picture.file.name})" for picture in pictures]
    return "\n\n".join(blocks) + "\n"


def introduction(report: Report) -> list[str]:
    """What was compared, on what, when and where: paragraphs of plain text."""
    card = report.card
    inputs = "texts" if card.feature_count is None else f"{card.feature_count:,} features"
    return [
        f"{report.train_rows:,} training and {report.test_rows:,} test points ({inputs}), "
        f"{card.label_count:,} labels. All test points are scored, those without labels too; every model ranks its "
        f"best 100 labels, and one program measures all rankings. Propensities: A = {card.propensity_a}, "
        f"B = {card.propensity_b}.",
        f"{report.day}, {report.machine}. Seconds and latencies hold for this machine and what else ran on it.",
    ]


def _table(table: Table) -> str:
    lines = [_row(table.heads), _row(["---"] + ["---:"] * (len(table.heads) - 1))]
    for at, row in enumerate(table.rows):
        lines.append(_row([f"**{cell}**" if (at, place) in table.best else cell for place, cell in enumerate(row)]))
    notes = "\n".join(f"- {_escaped(note)}" for note in table.notes)
    return "\n\n".join([f"## {table.title}", "\n".join(lines)] + ([notes] if notes else []))


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(_escaped, cells))} |"


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|").replace("\n", " ")
