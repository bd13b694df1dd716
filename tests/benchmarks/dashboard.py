"""The dashboard's panels, drawn from what a real Prometheus has scraped of a real service under a varied load.

    python -m tests.benchmarks.dashboard --out docker/monitoring/dashboard.png

Tiny bundles of all methods are served and asked by more and more clients, until queues are full; meanwhile a version is
swapped, another one follows as a shadow, and a bundle that is damaged is refused. Needs Prometheus and promtool. What
the figures say is of no interest: two processors compute the service, its clients, Prometheus and what others run.
"""

from __future__ import annotations

import argparse
import io
import math
import re
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from PIL import Image

from service.monitoring.board import rows
from service.monitoring.panels import HALF, WHOLE, Panel, Row, Unit
from tests.service.monitoring.prometheus import Prometheus, prometheus
from tests.service.monitoring.scenario import Load, served, yesterday

RULES = Path(__file__).parents[2] / "docker" / "monitoring" / "rules.yaml"
CLIENTS = (1, 2, 4, 8, 2)
PHASE_SECONDS = 10.0
# Of Grafana's $__rate_interval: as much of the load as a panel needs for smooth lines.
RATE_WINDOW = "5s"
STEPS = 120

INCHES_A_COLUMN, INCHES_A_LINE, INCHES_A_HEADING = 0.6, 1.9, 0.34
HEIGHTS = {"stat": 1.0, "lines": INCHES_A_LINE, "table": INCHES_A_LINE}
DOTS_PER_INCH = 74
# Enough for lines and letters; all others would double the size of the file.
SHADES = 64
COLOURS = ("#2f6fb5", "#d9822b", "#3d9970", "#a65ea8", "#b5485d", "#7a6f5d", "#36a3a3", "#c2a83e", "#6b7bd6", "#888888")
RED, INK, GREY = "#c0392b", "#222222", "#777777"
GROUNDS = "#f4f5f7"

BINARY = {"MiB": 2**20, "GiB": 2**30}


class Line(NamedTuple):
    """One series of an answer over time: seconds since the beginning, and values."""

    name: str
    seconds: list[float]
    values: list[float]


def main() -> None:
    """Serve, ask, scrape, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=PHASE_SECONDS, help="of each phase of the load")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as place, served(Path(place)) as (process, administrator):
        history = yesterday(process.port, time.time())
        with prometheus(process.port, Path(place), rules=[RULES], history=history) as scraper:
            scraper.await_true('xmc_ready{job="xmcserve"} == 1')
            since = time.time()
            for clients in CLIENTS:
                with Load(process.port, clients):
                    if clients == CLIENTS[1]:
                        administrator.shadow()
                    if clients == CLIENTS[2]:
                        administrator.swap()
                    time.sleep(chosen.seconds)
            draw(scraper, since, time.time(), chosen.out)


def draw(scraper: Prometheus, since: float, until: float, file: Path) -> None:
    """Draw all panels as Grafana would place them."""
    lines = [(row, line) for row in rows() for line in _lines_of(row)]
    heights = [HEIGHTS[line[0].kind] + INCHES_A_HEADING * (line[0] is row.panels[0]) for row, line in lines]
    picture = Figure(figsize=(WHOLE * INCHES_A_COLUMN, sum(heights)), layout="constrained", facecolor=GROUNDS)
    grids = picture.subfigures(len(lines), 1, height_ratios=heights)
    for (row, line), grid in zip(lines, grids, strict=True):
        grid.set_facecolor(GROUNDS)
        if line[0] is row.panels[0]:
            grid.suptitle(row.title, x=0.008, ha="left", fontsize=13, fontweight="bold", color=INK)
        ratios = [panel.width for panel in line]
        for panel, axes in zip(line, grid.subplots(1, len(line), squeeze=False, width_ratios=ratios)[0], strict=True):
            _PANELS[panel.kind](axes, panel, scraper, since, until)
    whole = io.BytesIO()
    picture.savefig(whole, dpi=DOTS_PER_INCH, format="png")
    shades = Image.open(whole).convert("RGB").quantize(SHADES, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    shades.save(file, optimize=True)


def _lines_of(row: Row) -> list[list[Panel]]:
    """Panels side by side, as many as fill the width."""
    lines: list[list[Panel]] = [[]]
    for panel in row.panels:
        if sum(other.width for other in lines[-1]) == WHOLE:
            lines.append([])
        lines[-1].append(panel)
    return lines


def _draw_stat(axes: Axes, panel: Panel, scraper: Prometheus, *_: float) -> None:
    found = scraper.seen(_substituted(panel.queries[0].expr))
    value = float(found[0]["value"][1])
    is_beyond = panel.limit is not None and value >= panel.limit
    _frame(axes, panel, padded=False)
    axes.set_xticks([])
    axes.set_yticks([])
    text = _spoken(value, panel.unit)
    axes.text(0.5, 0.45, text, ha="center", va="center", fontsize=22, color=RED if is_beyond else "#2e8b57")


def _draw_table(axes: Axes, panel: Panel, scraper: Prometheus, *_: float) -> None:
    found = scraper.seen(_substituted(panel.queries[0].expr))
    columns = sorted({name for series in found for name in series["metric"]})
    cells = sorted([series["metric"].get(name, "")[:28] for name in columns] for series in found)
    _frame(axes, panel, padded=False)
    axes.set_xticks([])
    axes.set_yticks([])
    drawn = axes.table(
        cells, colLabels=columns, loc="center", cellLoc="left", edges="horizontal", bbox=(0.01, 0.02, 0.98, 0.94)
    )
    drawn.auto_set_font_size(False)
    drawn.set_fontsize(9)
    for (line, _column), cell in drawn.get_celld().items():
        cell.set_edgecolor("#d5d8dc")
        cell.set_text_props(color=GREY if line == 0 else INK)


def _draw_lines(axes: Axes, panel: Panel, scraper: Prometheus, since: float, until: float) -> None:
    _frame(axes, panel, padded=True)
    drawn = [line for query in panel.queries for line in _series(query.expr, query.legend, scraper, since, until)]
    if not drawn:
        axes.set_xticks([])
        axes.set_yticks([])
        axes.text(0.5, 0.5, "no GPU on this machine", transform=axes.transAxes, ha="center", color=GREY)
        return
    shown = [line for line in drawn if any(line.values)] or drawn
    highest = max(value for line in shown for value in line.values if math.isfinite(value))
    lowest = min(value for line in shown for value in line.values if math.isfinite(value))
    divisor = BINARY["GiB" if highest >= BINARY["GiB"] else "MiB"] if panel.unit == "bytes" else 1
    for number, line in enumerate(sorted(shown, key=_size, reverse=True)):
        values = [value / divisor for value in line.values]
        axes.plot(line.seconds, values, color=COLOURS[number % len(COLOURS)], linewidth=1.3, label=line.name)
    top = highest
    if panel.limit is not None and highest > panel.limit / 3:
        axes.axhline(panel.limit, color=RED, linewidth=1, linestyle="--")
        top = max(highest, panel.limit)
    columns = 2 if panel.width < HALF else 4
    axes.set_xlim(0, until - since)
    # The legend gets room above the lines.
    room = 1.12 + 0.13 * math.ceil(len(shown) / columns)
    axes.set_ylim(min(0.0, lowest * 1.1) / divisor, (top * room or 1) / divisor)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _spoken(value * divisor, panel.unit)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f} s"))
    axes.legend(
        fontsize=8,
        loc="upper left",
        frameon=False,
        ncols=columns,
        labelcolor=INK,
        borderaxespad=0.1,
        handlelength=1,
        columnspacing=1,
        labelspacing=0.25,
    )


def _series(expr: str, legend: str, scraper: Prometheus, since: float, until: float) -> list[Line]:
    """What a query gave over the whole time."""
    step = (until - since) / STEPS
    asked = {"query": _substituted(expr), "start": f"{since}", "end": f"{until}", "step": f"{step}"}
    found: list[dict[str, Any]] = scraper.get("query_range", **asked)["result"]
    return [
        Line(
            _named(legend, series["metric"]),
            [instant - since for instant, _ in series["values"]],
            [float(value) for _, value in series["values"]],
        )
        for series in found
    ]


def _size(line: Line) -> float:
    return sum(value for value in line.values if math.isfinite(value))


def _frame(axes: Axes, panel: Panel, *, padded: bool) -> None:
    axes.set_title(panel.title, fontsize=10, loc="left", color=INK)
    axes.set_facecolor("white")
    axes.tick_params(labelsize=8, colors=GREY, length=0)
    for spine in axes.spines.values():
        spine.set_color("#d5d8dc")
    if padded:
        axes.grid(color="#e6e8eb", linewidth=0.7)


def _named(legend: str, labels: Mapping[str, str]) -> str:
    """A legend with its labels filled in; of a version its first characters tell enough, of an instance its port."""
    short = {name: value[:8] if name == "version" else value for name, value in labels.items()}
    return re.sub(r"\{\{(\w+)\}\}", lambda label: short.get(label[1], ""), legend)


def _spoken(value: float, unit: Unit) -> str:
    if unit == "percentunit":
        return f"{value * 100:.3g} %"
    if unit == "bytes":
        name = "GiB" if value >= BINARY["GiB"] else "MiB"
        return f"{value / BINARY[name]:,.4g} {name}"
    if unit == "s":
        return f"{value:.3g} s" if abs(value) >= 1 else f"{value * 1e3:.3g} ms"
    return f"{value:,.4g}" + {"reqps": " req/s", "cps": "/s"}.get(unit, "")


def _substituted(expr: str) -> str:
    return re.sub(r"\$(namespace|instance|model)", ".*", expr.replace("$__rate_interval", RATE_WINDOW))


_PANELS = {"stat": _draw_stat, "lines": _draw_lines, "table": _draw_table}


if __name__ == "__main__":
    main()
