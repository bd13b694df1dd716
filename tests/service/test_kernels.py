"""What is compiled where an image is built is all that a server calls."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from service.kernels import calls, types

# In a process of its own, where no other test has called a kernel with types that no bundle has.
SERVE = """
import json, tempfile
from pathlib import Path
from numba.core.dispatcher import Dispatcher
from service.bundle import open_bundle
from service.decoders import factors, mach
from service.engine import Engine
from service.filters.search import Wanted
from tests.bundles import METHODS, Spec, write_bundle
from tests.changes import change, make

factors.SEARCHED_VOTES = mach.SEARCHED_ENTRIES = 0
SPECS = [Spec(method=method, reranked=reranked) for method in METHODS for reranked in (False, True)] + [
    Spec(buckets=300),
    Spec(aggregation="min"),
    Spec(method="declare", alike=True),
    Spec(method="declare", recovery="rows"),
    Spec(method="unidec", leading=4),
    Spec(method="unidec", index="ivf"),
    Spec(method="unidec", index="hnsw"),
    Spec(method="unidec", index="ivf", directions=3),
]
called = set()
compile_for = Dispatcher._compile_for_args

def note(self, *arguments, **named):
    called.add(f"{self.py_func.__module__}.{self.py_func.__name__}{tuple(map(self.typeof_pyval, arguments))}")
    return compile_for(self, *arguments, **named)

Dispatcher._compile_for_args = note
for spec in SPECS:
    path = Path(tempfile.mkdtemp()) / "bundle"
    write_bundle(path, spec)
    engine = Engine.open(open_bundle(path), device="cpu")
    engine.warm_up()
    engine.check_golden()
    allowed = engine.filters.resolve((b'["label-35","label-36","label-37","label-38","label-39"]', None, None))
    answer = engine.run(engine.prepare(engine.golden_queries), 5, {0: Wanted(5, allowed)})
    assert answer.filtered[0].mode == "direct"
    added = {"new": "web"} if spec.method == "unidec" else {}
    make(engine, change(added, disable=["label-00"]))
    allowed = engine.filters.resolve((b'["new"]' if added else b'["label-35"]', None, None))
    answer = engine.run(engine.prepare(engine.golden_queries), 5, {0: Wanted(5, allowed)}, [0])
    answer.explainers[0].explain(answer.filtered[0].ids_K, answer.filtered[0].scores_K)
print(json.dumps(sorted(called)))
"""

# The same with one kernel, which is compiled quickly.
COMPILE = """
import sys
from pathlib import Path
from service import kernels

kernels.FOLDER = Path(sys.argv[1])
kernels.calls = kernels._common_calls
kernels.main()
"""
SELECT = """
import sys
from pathlib import Path
import numpy as np
from service import kernels

kernels.FOLDER = Path(sys.argv[1])
kernels.bring()
from service.search.topk import _select, select

assert select(np.array([[1, 3, 2]], dtype=np.float32), 2).ids_QK.tolist() == [[1, 2]]
print(sum(_select.stats.cache_hits.values()), sum(_select.stats.cache_misses.values()))
"""


def run(program: str, *arguments: str, **environment: str) -> str:
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, check=True, env=dict(os.environ) | environment
    ).stdout


def files(folder: Path) -> set[str]:
    return {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}


def test_no_bundle_needs_a_kernel_that_is_not_there() -> None:
    called: list[str] = json.loads(run(SERVE))
    compiled = {f"{kernel.py_func.__module__}.{kernel.py_func.__name__}{types(given)}" for kernel, given in calls()}
    assert set(called) <= compiled
    assert {call.split("(")[0] for call in called} == {call.split("(")[0] for call in compiled}


def test_a_server_brings_kernels_to_where_they_are_looked_for(tmp_path: Path) -> None:
    kept, place = tmp_path / "kept", tmp_path / "place"
    assert run(COMPILE, str(kept)).startswith(f"{kept}: kernels, compiled in ")
    assert run(SELECT, str(kept), NUMBA_CACHE_DIR=str(place)).split() == ["1", "0"]
    assert files(place) == files(kept)


def test_kernels_that_are_there_are_left_alone(tmp_path: Path) -> None:
    kept, place = tmp_path / "kept", tmp_path / "place"
    for folder in (kept, place):
        folder.mkdir()
        (folder / "of").write_text(folder.name)
    assert run(SELECT, str(kept), NUMBA_CACHE_DIR=str(place)).split() == ["0", "1"]
    assert (place / "of").read_text() == "place"


@pytest.mark.parametrize("place", ["", "nowhere"])
def test_without_kernels_a_server_compiles_its_own(tmp_path: Path, place: str) -> None:
    """Beside the sources, or in the folder that is named."""
    environment = {"NUMBA_CACHE_DIR": str(tmp_path / place)} if place else {"NUMBA_CACHE_DIR": ""}
    hits, misses = map(int, run(SELECT, str(tmp_path / "kept"), **environment).split())
    assert hits + misses == 1
    assert misses or not place
    assert (tmp_path / "nowhere").exists() == bool(place)
