"""What options of a recipe are worth: trains it with and without them, and measures the held-out rows.

    python -m tests.benchmarks.options --data DIR --recipe mach \
        "" "method.assignment=balanced" "method.assignment=balanced method.repartition_every=1"

Each argument is one variant, assignments as after `--set`; an empty one is the recipe as it is. All have the same
held-out rows, which no test split is a part of: what is chosen by this table may be reported on the test split.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from training.data.records import Source, open_named
from training.overrides import configured
from training.parts import fit
from training.recipes import prepared

MEASURES = ("P@1", "P@5", "nDCG@5", "PSP@1", "PSP@5")
MEGABYTE = 1e6


def main() -> None:
    """Print a Markdown table, one line a variant."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, metavar="DIR", help="data folder, or: sample")
    parser.add_argument("--recipe", required=True)
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="options of all variants")
    parser.add_argument("variants", nargs="+", metavar="'KEY=VALUE …'")
    arguments = parser.parse_args()
    print_head(arguments.recipe)
    source = open_named(arguments.data)
    for variant in arguments.variants:
        print_line(variant or "as it is", *measured(source, arguments.recipe, [*arguments.set, *variant.split()]))


def print_head(title: str) -> None:
    """The table's first lines."""
    print(f"| {title} | {' | '.join(MEASURES)} | train s | artifact MB |")
    print(f"| --- |{' ---: |' * (len(MEASURES) + 2)}")


def print_line(name: str, measures: dict[str, float], seconds: float, size_bytes: int) -> None:
    """One more line."""
    values = " | ".join(f"{measures[name]:.2f}" for name in MEASURES)
    print(f"| {name} | {values} | {seconds:.0f} | {size_bytes / MEGABYTE:.1f} |", flush=True)


def measured(source: Source, recipe: str, assignments: Sequence[str]) -> tuple[dict[str, float], float, int]:
    """Train once: measures of the held-out rows, seconds of training, bytes of the artifact."""
    run, dataset = prepared(configured(recipe, None, assignments), source)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "artifact"
        started = time.perf_counter()
        measures = fit(run, dataset, out, resume=False, log=lambda line: None)
        seconds = time.perf_counter() - started
        size_bytes = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    return measures, seconds, size_bytes


if __name__ == "__main__":
    main()
