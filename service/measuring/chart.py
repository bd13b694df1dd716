"""The picture of a measurement: latency against load. matplotlib is imported when it is drawn: no server needs it."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the load generator is not needed to draw
    from service.measuring.bench import Figures

DOTS_PER_INCH = 120
# Lighter towards the middle of the distribution: the tail is what a reader looks for.
QUANTILES = (("p50", "p50_ms", "#9ecae1"), ("p90", "p90_ms", "#4292c6"), ("p99", "p99_ms", "#08519c"))


def can_draw() -> bool:
    """Whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


def draw(figures: Sequence[Figures], title: str, file: Path) -> None:
    """Draw the latencies of each load that had answers, as PNG.

    Args:
        figures: of closed loops, drawn over the answers per second, or of open loops, over the rates asked for.
        title: what was measured.
        file: where the picture is written.
    """
    from matplotlib.figure import Figure

    answered = [line for line in figures if line.p50_ms is not None]
    is_open = any(line.offered_per_second is not None for line in answered)
    loads = [line.offered_per_second or line.answered_per_second for line in answered]
    picture = Figure(figsize=(7, 4.2), layout="constrained")
    axes = picture.subplots()
    for name, field, colour in QUANTILES:
        axes.plot(loads, [getattr(line, field) for line in answered], marker="o", color=colour, label=name)
    for load, line in zip(loads, answered, strict=True):
        note = f"{line.answered_per_second:,.0f}/s answered" if is_open else line.load
        point = (load, line.p99_ms or 0.0)
        axes.annotate(note, point, textcoords="offset points", xytext=(0, 6), ha="center", fontsize=8)
    axes.set_title(title)
    axes.set_xlabel("requests offered per second" if is_open else "answers per second")
    axes.set_ylabel("latency, ms")
    axes.set_yscale("log")
    axes.set_xlim(left=0)
    axes.margins(y=0.15)
    axes.grid(alpha=0.3)
    axes.legend()
    picture.savefig(file, dpi=DOTS_PER_INCH, format="png")
