"""The report's pictures, as PNG files. matplotlib is imported when they are drawn: no other command needs it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from training.compare.report import Line, Report
from training.compare.truth import PART_K, Part

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MB = 10**6
ACCURACIES = ("P@1", "PSP@5")
DOTS_PER_INCH = 120
MARKERS = {"ours": "o", "peer": "s"}
FRONT = "#9aa5b1"
PART_COLOURS = ("#1b6ca8", "#67a9cf", "#f4a259")


@dataclass(frozen=True)
class Picture:
    """A drawn picture.

    Attributes:
        file: the PNG.
        title: its caption.
        text: what it shows, in words, for readers who do not see it.
    """

    file: Path
    title: str
    text: str


def draw(report: Report, folder: Path) -> list[Picture]:
    """Draw all pictures of a report into a folder."""
    scored = [line for line in report.lines if line.scores is not None]
    sized = [line for line in scored if line.serving_bytes is not None]
    pictures = []
    if sized:
        _draw_pareto(sized, folder / "pareto.png")
        pictures.append(Picture(folder / "pareto.png", "Accuracy against bytes", _pareto_text(sized)))
    _draw_parts(scored, report.parts, folder / "parts.png")
    title = f"What head, torso and tail give to P@{PART_K}"
    pictures.append(Picture(folder / "parts.png", title, _parts_text(scored)))
    return pictures


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Positions of the points that no other beats in both coordinates, by rising first one.

    Args:
        points: (bytes, accuracy): fewer bytes and more accuracy are better.
    """
    front: list[int] = []
    for place in sorted(range(len(points)), key=lambda place: (points[place][0], -points[place][1])):
        if not front or points[place][1] > points[front[-1]][1]:
            front.append(place)
    return front


def _draw_pareto(lines: Sequence[Line], file: Path) -> None:
    # The figure alone: no backend, no window, no global state.
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    colours = colormaps["tab10" if len(lines) <= 10 else "tab20"].colors  # type: ignore[attr-defined]
    all_axes = figure.subplots(1, len(ACCURACIES))
    for axes, name in zip(all_axes, ACCURACIES, strict=True):
        points = [_point(line, name) for line in lines]
        front = [points[place] for place in pareto_front(points)]
        axes.step(*zip(*front, strict=True), where="post", color=FRONT, linestyle="--", zorder=1)
        for place, (line, point) in enumerate(zip(lines, points, strict=True)):
            marker, colour = MARKERS[line.kind], colours[place % len(colours)]
            axes.scatter(*point, s=60, color=colour, marker=marker, label=line.name, zorder=2)
        _label_sizes(axes)
        axes.set_ylabel(f"{name}, %")
        axes.grid(alpha=0.3)
    handles, names = all_axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside right center")
    figure.supxlabel("MB on disk: bundle (dots), or another library's saved model (squares)", fontsize="medium")
    figure.savefig(file, dpi=DOTS_PER_INCH)


def _label_sizes(axes: Axes) -> None:
    """A logarithmic axis with plain numbers, and enough of them on a short range."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    axes.margins(x=0.15, y=0.15)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _draw_parts(lines: Sequence[Line], parts: Sequence[Part], file: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 1.5 + 0.4 * len(lines)), layout="constrained")
    axes = figure.subplots()
    names = [line.name for line in lines]
    left = [0.0] * len(lines)
    for part, colour in zip(parts, PART_COLOURS, strict=False):
        widths = [_contribution(line, part.name) for line in lines]
        axes.barh(names, widths, left=left, color=colour, label=part.name)
        left = [before + width for before, width in zip(left, widths, strict=True)]
    axes.invert_yaxis()
    axes.set_xlabel(f"contribution to P@{PART_K}, %")
    axes.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside upper center", ncols=len(parts))
    figure.savefig(file, dpi=DOTS_PER_INCH)


def _point(line: Line, name: str) -> tuple[float, float]:
    assert line.scores is not None
    assert line.serving_bytes is not None
    return line.serving_bytes / MB, line.scores.measures[name]


def _contribution(line: Line, part: str) -> float:
    assert line.scores is not None
    return line.scores.part_precision[part]


def _pareto_text(lines: Sequence[Line]) -> str:
    parts = []
    for line in lines:
        values = ", ".join(f"{name} {_point(line, name)[1]:.1f} %" for name in ACCURACIES)
        parts.append(f"{line.name}: {_point(line, ACCURACIES[0])[0]:.1f} MB, {values}")
    return "Scatter plots. " + "; ".join(parts)


def _parts_text(lines: Sequence[Line]) -> str:
    parts = []
    for line in lines:
        assert line.scores is not None
        values = ", ".join(f"{name} {value:.1f}" for name, value in line.scores.part_precision.items())
        parts.append(f"{line.name}: {values}")
    return "Stacked bars. " + "; ".join(parts)
