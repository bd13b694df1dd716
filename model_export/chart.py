"""The picture of a choice: recall against latency of every index that was measured. matplotlib is imported to draw."""

from __future__ import annotations

from pathlib import Path

from service.bundle.searching import IndexPoint, IndexSection
from service.measuring.chart import DOTS_PER_INCH


def draw(section: IndexSection, title: str, file: Path) -> None:
    """Draw a line for each type of index and number of candidates, and a ring around what was chosen, as PNG.

    Args:
        section: with a curve.
        title: what was measured.
        file: where the picture is written.
    """
    from matplotlib.figure import Figure

    picture = Figure(figsize=(7, 4.2), layout="constrained")
    axes = picture.subplots()
    for name, points in lines(section).items():
        axes.plot([point.p50_ms for point in points], [point.recall for point in points], marker="o", label=name)
    chosen = [point for point in section.curve if is_chosen(point, section)]
    axes.plot(
        [point.p50_ms for point in chosen],
        [point.recall for point in chosen],
        linestyle="",
        marker="o",
        markersize=14,
        markerfacecolor="none",
        color="black",
        label="chosen",
    )
    axes.set_title(title)
    axes.set_xlabel("median latency of one query on one thread, ms")
    axes.set_ylabel(f"recall@{section.recall_at}")
    axes.set_xscale("log")
    axes.grid(alpha=0.3)
    axes.legend()
    picture.savefig(file, dpi=DOTS_PER_INCH, format="png")


def lines(section: IndexSection) -> dict[str, list[IndexPoint]]:
    """The points of the curve by what they have in common, in the order of measurement; its name says their size."""
    found: dict[str, list[IndexPoint]] = {}
    for point in section.curve:
        candidates = "" if point.candidates is None else f", {point.candidates} candidates"
        found.setdefault(f"{point.type}{candidates}, {point.size_bytes / 1e6:,.0f} MB", []).append(point)
    return found


def is_chosen(point: IndexPoint, section: IndexSection) -> bool:
    """Whether a point of the curve is that of the index that was written."""
    return (point.type, point.effort, point.candidates) == (section.type, section.effort, section.candidates)
