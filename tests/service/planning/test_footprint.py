"""Memory, held against the process that a server would start for a bundle."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_array, random_array

from service.bundle import layout
from service.decoders import nearest
from service.planning.constants import Law, load
from service.planning.footprint import footprint_of
from service.planning.work import NAMES, held_numbers, lists_bytes, work_of
from service.planning.workload import Wishes, resolved
from service.search.votes import Votes
from tests.benchmarks.capacity.measure import memory_of
from tests.bundles import Spec, write_bundle
from tests.service.planning.test_sizes import planned_for

NEAR = 0.15

SPECS = {
    "mach": Spec(label_count=40_000, repetitions=16, buckets=512),
    "unidec": Spec(method="unidec", label_count=100_000, half_dimension=32),
}


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_a_process_takes_as_much_as_planned(tmp_path: Path, spec: Spec) -> None:
    path = tmp_path / "bundle"
    write_bundle(path, spec)
    encoder_bytes = (path / layout.ENCODER).stat().st_size
    workload = replace(planned_for(path, spec), encoder_bytes=encoder_bytes)
    constants = load()
    planned = footprint_of(workload, work_of(workload, constants.files), constants, on_gpu=False)
    found = memory_of(path)
    assert planned.model_private == pytest.approx(found.private, rel=NEAR)
    # Tiny bundles hold the offsets of MACH in 64 bits, and no tokens to speak of.
    assert planned.model_mapped == pytest.approx(found.mapped, rel=NEAR)


@pytest.mark.parametrize("labels", [50, 5_000])
def test_lists_of_declare_are_as_large_as_planned(labels: int) -> None:
    rng = np.random.default_rng(0)
    rows = 60_000
    votes_GL = csr_array(random_array((rows, labels), density=5 / labels, rng=rng, dtype=np.float32))
    votes_GL.sort_indices()
    factors_LC = rng.standard_normal((labels, 8)).astype(np.float32)
    made = nearest.make_lists(Votes.from_csr(votes_GL), factors_LC, np.ones(rows, dtype=np.float32))
    parts = (*made, *nearest.make_room(rows))
    found = sum(part.nbytes for part in parts if isinstance(part, np.ndarray))
    workload = resolved(Wishes("declare", labels, rows=rows, row_labels=votes_GL.nnz / rows))
    assert lists_bytes(workload) == pytest.approx(found, rel=0.02)


def test_every_amount_of_work_has_a_name() -> None:
    constants = load()
    assert work_of(resolved(Wishes("mach", 1000)), constants.files).keys() == NAMES.keys()


def test_few_votes_need_no_lists() -> None:
    assert lists_bytes(resolved(Wishes("declare", 100, rows=100))) == 0
    assert lists_bytes(resolved(Wishes("declare", 10**6, rows=10**5))) == 0  # by rows


@pytest.mark.parametrize(
    ("wishes", "numbers"),
    [
        (Wishes("mach", 1000), 0),
        (Wishes("declare", 1000, rows=5000, dimension=10), 0),
        (Wishes("declare", 1000, rows=500, dimension=10), 5000),
        (Wishes("unidec", 1000, dimension=10), 10_000),
        (Wishes("unidec", 1000, dimension=10, leading=4), 4000),
        (Wishes("unidec", 1000, dimension=10, index="ivf"), 0),
    ],
)
def test_an_exact_search_holds_its_numbers(wishes: Wishes, numbers: int) -> None:
    assert held_numbers(resolved(wishes)) == numbers


@pytest.mark.parametrize(
    ("wishes", "bytes_"),
    [
        (Wishes("mach", 10**6, repetitions=8, encoder_bytes=1), 1 + 4 * 8 * 10**6 + 9 * 2**27),
        (Wishes("unidec", 10**6, dimension=64, index="flat", encoder_bytes=1), 1 + 6 * 64 * 10**6),
        (Wishes("unidec", 10**6, index="ivf", encoder_bytes=1), 1),
        (Wishes("declare", 10**6, encoder_bytes=1), 1),
    ],
)
def test_a_gpu_holds_what_it_searches(wishes: Any, bytes_: int) -> None:
    workload, constants = resolved(wishes), load()
    work = work_of(workload, constants.files)
    assert footprint_of(workload, work, constants, on_gpu=True).gpu == bytes_
    assert footprint_of(workload, work, constants, on_gpu=False).gpu == 0


def test_a_law_tells_what_nobody_has_measured() -> None:
    law = Law(costs={"always": 1.0, "labels": 0.5}, measured={"labels": 10.0})
    assert law.of({"labels": 10}) == 6.0
    assert law.beyond({"labels": 10}) == {}
    assert law.beyond({"labels": 11}) == {"labels": 11}
