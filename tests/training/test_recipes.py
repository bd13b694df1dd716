"""From a run and a data folder to a resolved run and its rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.data.records import open_source
from training.overrides import configured
from training.recipes import prepared

PART = "part={repetition=0, of=2}"


@pytest.mark.parametrize(
    ("recipe", "assignments", "held"),
    [
        ("mach", [], 3),
        ("mach-reranked", [], 12),
        ("mach-reranked", [PART], 12),  # what trains a part is what trains the whole
        ("mach-reranked", ["training.validation_fraction=0.1"], 6),
    ],
)
def test_a_reranker_has_more_of_few_rows_held_out(texts: Path, recipe: str, assignments: list[str], held: int) -> None:
    """Of 60 rows."""
    _, dataset = prepared(configured(recipe, None, assignments), open_source(texts))
    assert (len(dataset.train), len(dataset.validation)) == (60 - held, held)
